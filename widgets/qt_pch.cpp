// Owns the precompiled Qt headers that the libraries of the window reuse.

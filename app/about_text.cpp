#include "app/about_text.h"

#include <QCoreApplication>
#include <QGuiApplication>
#include <QSysInfo>

namespace qs {
namespace {
QString tr(const char* text) { return QCoreApplication::translate("qs::AboutText", text); }
}  // namespace

QString about_text() {
  return tr("<h2>Quantoscope %1</h2>"
            "<p>A workbench for people who study and choose quantization of language models.</p>"
            "<p>Licence: GPL-3.0-or-later, because Qt Charts is GPL-3.</p>"
            "<p>Built with Qt %2 (LGPL-3; Qt Charts GPL-3), LibTorch (BSD-3-Clause), HDF5 (BSD style), Eigen "
            "(MPL-2.0), "
            "nlohmann-json (MIT), CLI11 (BSD-3-Clause), spdlog (MIT), SentencePiece (Apache-2.0), PCRE2 "
            "(BSD-3-Clause).</p>"
            "<p>Bundled: sample-hf and sample-outliers-hf (MIT, trained for this project; sources and attribution lie "
            "beside them), "
            "validation stories and chapters (public domain, CC0, CC BY), see the folder of texts for each.</p>"
            "<p>Methods: round to nearest; KIVI, Liu et al. 2024, arXiv:2402.02750; SmoothQuant, Xiao et al. 2023, "
            "arXiv:2211.10438.</p>")
      .arg(QStringLiteral(QUANTOSCOPE_VERSION), QLatin1String(qVersion()));
}

QString help_text() {
  return tr("<h2>Contents</h2>"
            "<p><b>Open</b> a model folder, a capture (HDF5) or a session: File menu, or drop it on the window. What a "
            "file is, is judged by its content.</p>"
            "<p><b>Capture</b> runs a text through the model and keeps keys (before and after RoPE), values, queries, "
            "attention statistics and the "
            "input statistics of every linear layer in one HDF5 file that h5py reads too.</p>"
            "<p><b>Plans</b> are variants: a model with a weight setup, a KV setup or both. The inspector on "
            "the right edits the parameters "
            "of variant B; everything that depends on them is computed again. In the menu Quantize, <b>Solve for "
            "Bits</b> "
            "sets one parameter "
            "so that a target of effective bits is met, <b>Per-layer Overrides</b> gives layers setups of their own, "
            "and "
            "<b>Choose Per Layer</b> "
            "finds them within a budget of memory.</p>"
            "<p><b>Views</b> share one selection: a layer, head, channel or token chosen in one is chosen in all that "
            "show a closed chain. "
            "A and B are two variants; 1 2 3 4 show A, B, A-B and A/B.</p>"
            "<p><b>Evaluate</b> gives perplexity, KL divergence and top-1 agreement with confidence intervals. Numbers "
            "of different protocols are "
            "never compared without a warning.</p>"
            "<p><b>Export</b> any view as SVG, PDF, PNG, CSV or LaTeX; a line under the figure says how it was "
            "made.</p>") +
         view_keys_text();
}

QString tutorial_text() {
  return tr(
      "<h2>A walk through the sample</h2><ol>"
      "<li><b>Outliers</b>: sample-outliers-hf has a few key channels that are about twenty times larger than the "
      "others. "
      "Choose the capture of sample-hf in the project panel to see the same function without them.</li>"
      "<li><b>Error</b>: A is round-to-nearest with one scale per token and 2 bits: the large channels set the scale "
      "and the small ones are "
      "rounded away. B is KIVI with 2 bits and one scale per key channel: the error is spread evenly and smaller.</li>"
      "<li><b>Attention</b>: how far back each head looks, and how much of it lies outside the window that KIVI keeps "
      "in full precision.</li>"
      "<li><b>Alpha</b>: SmoothQuant moves the difficulty from activations to weights; the sweep shows how much is "
      "right.</li>"
      "<li><b>Chat</b>: press Enter and watch where the first token differs.</li>"
      "<li><b>Inspector</b>: change the bits of variant B; Ctrl+Z takes it back.</li></ol>");
}

QString view_keys_text() {
  return tr(
      "<h3>Inside views</h3><table cellpadding=3>"
      "<tr><td>Wheel</td><td>zoom at the cursor (Ctrl: only x; Shift: pan x)</td></tr>"
      "<tr><td>Drag</td><td>pan; right drag zooms into a box; Ctrl+drag brushes</td></tr>"
      "<tr><td>Arrows</td><td>move the data cursor by 1 (Shift: 10), PgUp, PgDn, Home, End further</td></tr>"
      "<tr><td>P, R</td><td>pin the value, zoom into a box</td></tr>"
      "<tr><td>Esc</td><td>clear the brush; in Chat stop all columns</td></tr></table>");
}

QString diagnostics_text() {
  return QStringLiteral("Quantoscope %1\nQt %2 (%3)\n%4, %5")
      .arg(QStringLiteral(QUANTOSCOPE_VERSION), QLatin1String(qVersion()), QGuiApplication::platformName(),
           QSysInfo::prettyProductName(), QSysInfo::currentCpuArchitecture());
}

}  // namespace qs

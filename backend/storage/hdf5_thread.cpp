#include "backend/storage/hdf5_thread.h"

#include <ATen/Parallel.h>
#include <hdf5.h>
#include <omp.h>

namespace qs {

Hdf5Thread& Hdf5Thread::instance() {
  static Hdf5Thread* const thread = new Hdf5Thread;  // never destroyed: readers may outlive other static objects
  return *thread;
}

Hdf5Thread::Hdf5Thread() : thread_([this] { loop(); }) {}

void Hdf5Thread::push(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  ready_.notify_one();
}

void Hdf5Thread::loop() {
  // Two teams of OpenMP threads would spin against each other; the setting is per thread, made after LibTorch's own.
  at::get_num_threads();
  omp_set_num_threads(1);
  H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return !tasks_.empty(); });
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace qs

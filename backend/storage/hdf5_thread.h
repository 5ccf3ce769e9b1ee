#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>

namespace qs {

/// The one thread that calls HDF5. Everybody else hands it a function. A lock inside each HDF5 call would not make two
/// calls one step, and not every build of the library has one.
class Hdf5Thread {
 public:
  static Hdf5Thread& instance();

  /// Queues `work`; its result or exception comes through the future. Work runs in the order of submission.
  template <typename Work>
  auto submit(Work work) -> std::future<std::invoke_result_t<Work&>> {
    using Result = std::invoke_result_t<Work&>;
    auto task = std::make_shared<std::packaged_task<Result()>>(std::move(work));
    auto future = task->get_future();
    push([task] { (*task)(); });
    return future;
  }

  /// Runs `work` there and waits for it. Called on the HDF5 thread itself, it runs at once.
  template <typename Work>
  auto run(Work work) -> std::invoke_result_t<Work&> {
    if (std::this_thread::get_id() == thread_.get_id()) return work();
    return submit(std::move(work)).get();
  }

 private:
  Hdf5Thread();
  void push(std::function<void()> task);
  void loop();

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  std::thread thread_;
};

}  // namespace qs

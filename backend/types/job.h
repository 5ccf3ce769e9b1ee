#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string_view>

namespace qs {

/// Thrown by JobContext::checkpoint when a stop was requested. It is not an Error and not a failure.
struct Cancelled {};

/// How long work reports its progress and notices that it should stop. Cheap to copy; a default-made one never cancels
/// and reports to nobody.
class JobContext {
 public:
  /// Called with the fraction done in 0..1 and the name of the step, on the thread that does the work.
  using Report = std::function<void(double fraction, std::string_view step)>;

  JobContext() = default;
  JobContext(std::stop_token stop, Report report) : stop_(std::move(stop)), report_(std::move(report)) {}

  /// Reports `done` of `total` (in whatever unit the step counts) and throws Cancelled when a stop was requested.
  /// To be called every 10 to 200 ms; never inside at::parallel_for or an HDF5 callback.
  void checkpoint(std::int64_t done, std::int64_t total, std::string_view step) const;

  /// A context whose 0..1 is the slice from `from` to `to` of this one.
  JobContext part(double from, double to) const;

  /// The same stop without reports, for the inner steps of a loop that reports itself.
  JobContext quiet() const { return {stop_, {}}; }

  bool stop_requested() const noexcept { return stop_.stop_requested(); }

 private:
  std::stop_token stop_;
  Report report_;
  double from_ = 0.0;
  double to_ = 1.0;
};

}  // namespace qs

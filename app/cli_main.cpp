// quantoscope-cli: the verbs of the command line over the same library as the window. No Qt GUI.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <stop_token>

#include "app/cli/cli.h"
#include "backend/methods/packed_from_codes.h"
#include "kernels/dispatch.h"

namespace {

volatile std::sig_atomic_t g_interrupted = 0;

void on_interrupt(int) { g_interrupted = 1; }

/// Rewrites one line of standard error on a terminal; elsewhere writes a line when two seconds have passed.
class ProgressLine {
 public:
  void show(double fraction, std::string_view step) {
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%5.1f %%  %.*s", 100.0 * fraction, static_cast<int>(step.size()), step.data());
      shown_ = true;
    } else if (const auto now = std::chrono::steady_clock::now(); now - written_ >= std::chrono::seconds(2)) {
      std::fprintf(stderr, "%3.0f %%  %.*s\n", 100.0 * fraction, static_cast<int>(step.size()), step.data());
      written_ = now;
    }
  }
  void clear() {
    if (shown_) std::fprintf(stderr, "\r\033[K");
    shown_ = false;
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) != 0, shown_ = false;
  std::chrono::steady_clock::time_point written_ = std::chrono::steady_clock::now();
};

int fail(ProgressLine& progress, int status, const std::string& message, const std::string& detail = {}) {
  progress.clear();
  std::fprintf(stderr, "quantoscope-cli: %s\n", message.c_str());
  if (!detail.empty()) std::fprintf(stderr, "%s\n", detail.c_str());
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace qs::cli;
  CLI::App app{"Quantoscope: measure what quantization does to a language model."};
  app.set_version_flag("--version", QUANTOSCOPE_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  Cli cli;
  app.add_flag("--json", cli.json, "print one JSON document");
  app.add_flag("--verbose", cli.verbose, "print the technical detail of a failure");
  for (const auto add :
       {add_methods, add_models, add_inspect, add_capture, add_stats, add_calibrate, add_apply, add_eval, add_layers,
        add_alpha_sweep, add_auto, add_solve, add_quantize, add_generate, add_tokenize, add_verify, add_bench}) {
    add(app, cli);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // CLI11 says only that a subcommand is missing when it does not know the one that is there.
    const auto known = app.get_subcommands([](const CLI::App*) { return true; });
    const auto named = [&](const CLI::App* verb) { return verb->get_name() == argv[1]; };
    if (argc > 1 && argv[1][0] != '-' && std::none_of(known.begin(), known.end(), named)) {
      std::fprintf(stderr, "There is no verb '%s'.\n", argv[1]);
    }
    return app.exit(e) == 0 ? 0 : 2;
  }

  ProgressLine progress;
  if (const std::string problem = qs::kernels::kernel_set_problem(); !problem.empty())
    return fail(progress, 2, problem);
  qs::load_codes_as_packed_linears();
  std::signal(SIGINT, on_interrupt);
  std::stop_source stop;
  const qs::JobContext job(stop.get_token(), [&](double fraction, std::string_view step) {
    if (g_interrupted) stop.request_stop();
    progress.show(fraction, step);
  });
  try {
    const Output output = cli.work(job);
    progress.clear();
    std::fputs((cli.json ? output.json.dump(2) + "\n" : output.text).c_str(), stdout);
    return cli.status;
  } catch (const UsageError& e) {
    return fail(progress, 2, e.message);
  } catch (const qs::Cancelled&) {
    return fail(progress, 1, "Cancelled.");
  } catch (const qs::Error& e) {
    return fail(progress, 1, e.what(), cli.verbose ? e.detail() : std::string());
  } catch (const std::exception& e) {
    return fail(progress, 1, "Something unexpected went wrong. Run again with --verbose and report what it prints.",
                cli.verbose ? e.what() : "");
  }
}

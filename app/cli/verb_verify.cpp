#include "app/cli/cli.h"
#include "backend/evaluation/golden_evaluation.h"
#include "backend/methods/golden.h"

namespace qs::cli {

void add_verify(CLI::App& app, Cli& cli) {
  auto folder = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("verify", "run the golden cases of a manifest.json through the methods");
  verb->add_option("GOLDEN_DIR", *folder, "folder with manifest.json")->required();
  verb->callback([&cli, folder] {
    cli.work = [&cli, folder](const JobContext& job) {
      const VerifyReport report = verify_golden(resolve_path(*folder), job, golden_evaluation_runners());
      cli.status = report.failed.empty() ? 0 : 1;
      Output output;
      output.json = {
          {"cases", report.cases}, {"passed", report.passed}, {"failed", Json::array()}, {"skipped", Json::array()}};
      for (const VerifyFailure& failure : report.failed) {
        output.json["failed"].push_back({{"case", failure.case_name},
                                         {"tensor", failure.tensor},
                                         {"rule", failure.rule},
                                         {"worst", number(failure.worst)}});
        output.text += "FAILED  " + failure.case_name + (failure.tensor.empty() ? "" : "  " + failure.tensor) + "  " +
                       failure.rule + "  worst " + significant(failure.worst, 4) + "\n";
      }
      for (const VerifySkip& skip : report.skipped) {
        output.json["skipped"].push_back({{"case", skip.case_name}, {"why", skip.why}});
        output.text += "skipped " + skip.case_name + ": " + skip.why + "\n";
      }
      output.text += std::to_string(report.cases) + " cases: " + std::to_string(report.passed) + " passed, " +
                     std::to_string(report.cases - report.passed - static_cast<std::int64_t>(report.skipped.size())) +
                     " failed, " + std::to_string(report.skipped.size()) + " skipped\n";
      return output;
    };
  });
}

}  // namespace qs::cli

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/locality.h"
#include "analysis/outliers.h"
#include "app/cli/cli.h"
#include "backend/storage/capture_reader.h"

namespace qs::cli {
namespace {

Json tensor_json(const std::string& name, const analysis::ChannelStats& stats,
                 const analysis::ChannelRanking& ranking) {
  Json outliers = Json::array();
  for (std::int64_t rank = 0; rank < ranking.above; ++rank) {
    outliers.push_back({{"channel", ranking.order[static_cast<std::size_t>(rank)]},
                        {"absmax", number(ranking.values[static_cast<std::size_t>(rank)])}});
  }
  double kurtosis = -std::numeric_limits<double>::infinity();
  for (const float k : stats.kurtosis) kurtosis = std::max<double>(kurtosis, std::isnan(k) ? kurtosis : k);
  return {{"tensor", name},
          {"channels", stats.channels()},
          {"tokens", stats.tokens},
          {"absmax", number(ranking.values.front())},
          {"median_absmax", number(ranking.median)},
          {"max_median_ratio", number(ranking.values.front() / ranking.median)},
          {"largest_kurtosis", number(kurtosis)},
          {"non_finite", stats.non_finite},
          {"outlier_channels", outliers}};
}

}  // namespace

void add_stats(CLI::App& app, Cli& cli) {
  struct Options {
    std::string capture;
    double k = 6.0;
    std::int64_t queries = 512;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      app.add_subcommand("stats", "outlier channels, ranges, kurtosis and attention locality of a capture");
  verb->add_option("CAPTURE", options->capture, "capture file")->required();
  verb->add_option("--threshold", options->k, "a channel counts as an outlier above this many medians")
      ->check(CLI::PositiveNumber);
  verb->add_option("--queries", options->queries, "query rows a head that attention is measured on; 0: all")
      ->check(CLI::NonNegativeNumber);
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      const auto capture = CaptureReader::open(resolve_path(options->capture));
      const CaptureInfo& info = capture->info();
      Output output{{{"capture", options->capture},
                     {"model", info.model_name},
                     {"tokens", info.tokens},
                     {"complete", info.complete},
                     {"threshold", options->k},
                     {"tensors", Json::array()},
                     {"attention", Json::array()}},
                    {}};
      Table table({"tensor", "absmax", "median absmax", "max/median", "outlier channels", "NaN or Inf"});
      std::string attention_text;
      const auto add = [&](const std::string& name, const analysis::ChannelStats& stats) {
        const analysis::ChannelRanking ranking = analysis::rank_channels(stats.absmax, options->k);
        output.json["tensors"].push_back(tensor_json(name, stats, ranking));
        std::string channels = std::to_string(ranking.above);
        for (std::int64_t rank = 0; rank < std::min<std::int64_t>(ranking.above, 6); ++rank) {
          channels += (rank ? ", " : ": ") + std::to_string(ranking.order[static_cast<std::size_t>(rank)]);
        }
        table.row({name, significant(ranking.values.front(), 4), significant(ranking.median, 4),
                   fixed(ranking.values.front() / ranking.median, 2), channels, std::to_string(stats.non_finite)});
      };
      for (std::int64_t layer = 0; layer < info.layers; ++layer) {
        job.checkpoint(layer, info.layers, "Channel statistics");
        for (const char* tap : {"key", "key_pre_rope", "value"}) {
          if (capture->has(layer_dataset(layer, tap))) {
            add("layer " + std::to_string(layer) + " " + tap, analysis::channel_stats(capture->read_layer(layer, tap)));
          }
        }
      }
      for (const std::string& linear : info.linears)
        add(linear + " input", analysis::channel_stats(capture->activation_stats(linear)));
      Table locality({"layer", "head", "entropy, nats", "on the first 4 tokens", "within 32 tokens", "within 128",
                      "90 % span, tokens"});
      for (std::int64_t layer = 0; layer < info.layers; ++layer) {
        if (!capture->has(layer_dataset(layer, "query")) || !capture->has(layer_dataset(layer, "key"))) continue;
        analysis::AttentionInput input{.query = capture->read_layer(layer, "query"),
                                       .key = capture->read_layer(layer, "key"),
                                       .window = info.window};
        if (capture->has(layer_dataset(layer, "log_sum_exp")))
          input.log_sum_exp = capture->read_layer(layer, "log_sum_exp");
        for (std::int64_t head = 0; head < input.heads(); ++head) {
          job.checkpoint(layer * input.heads() + head, info.layers * input.heads(), "Attention locality");
          const analysis::HeadLocality found = analysis::head_locality(input, head, 4, options->queries);
          output.json["attention"].push_back({{"layer", layer},
                                              {"head", head},
                                              {"entropy_nats", number(found.entropy_nats)},
                                              {"sink_mass", number(found.sink_mass)},
                                              {"mass_within_32", number(found.mass_within(32))},
                                              {"mass_within_128", number(found.mass_within(128))},
                                              {"span_90_tokens", number(found.span_90)},
                                              {"queries", found.queries}});
          locality.row({std::to_string(layer), std::to_string(head), fixed(found.entropy_nats, 3),
                        fixed(100 * found.sink_mass, 2) + "%", fixed(100 * found.mass_within(32), 1) + "%",
                        fixed(100 * found.mass_within(128), 1) + "%", fixed(found.span_90, 0)});
        }
      }
      if (!output.json["attention"].empty()) attention_text = "\n" + locality.text();
      output.text = info.model_name + ", " + std::to_string(info.tokens) + " tokens; outlier channel: absmax above " +
                    significant(options->k, 3) + " medians\n" + table.text() + attention_text;
      return output;
    };
  });
}

}  // namespace qs::cli

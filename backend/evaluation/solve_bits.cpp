#include "backend/evaluation/solve_bits.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "backend/method_registry.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kSameBits = 1e-9;
constexpr std::int64_t kMostSteps = 4096;
constexpr int kFewValues = 160, kGridPoints = 33, kHalvings = 40;

/// The setup's own part that a key belongs to, and the key within it.
struct Place {
  std::size_t part = 0;  ///< 0: the first method, n: the n-th behind a plus sign
  std::string key;
};

Setup& part_of(Setup& setup, const Place& place) { return place.part == 0 ? setup : setup.then[place.part - 1]; }

const MethodInfo& info_of(const std::string& method, const std::vector<MethodInfo>& methods) {
  for (const MethodInfo& info : methods) {
    if (info.id == method) return info;
  }
  throw Error(ErrorCode::NotFound, "There is no method '" + method + "'.");
}

/// Free text has no domain to look through.
bool has_values(const ParamSpec& spec) {
  return !std::holds_alternative<std::string>(spec.fallback) || std::holds_alternative<Choices>(spec.domain);
}

const ParamSpec* spec_of(const MethodInfo& info, const std::string& key) {
  for (const ParamSpec& spec : info.params) {
    const bool named =
        spec.key == key || std::find(spec.aliases.begin(), spec.aliases.end(), key) != spec.aliases.end();
    if (named && has_values(spec)) return &spec;
  }
  return nullptr;
}

Place place_of(const Setup& setup, const std::string& key, const std::vector<MethodInfo>& methods) {
  const std::size_t dot = key.find('.');
  const std::string method = dot == std::string::npos ? "" : key.substr(0, dot), name = key.substr(dot + 1);
  for (std::size_t part = 0; part <= setup.then.size(); ++part) {
    const Setup& of = part == 0 ? setup : setup.then[part - 1];
    if (!method.empty() && method != of.method) continue;
    if (const ParamSpec* spec = spec_of(info_of(of.method, methods), dot == std::string::npos ? key : name))
      return {part, spec->key};
  }
  std::string known;
  for (const std::string& free : free_keys(setup, methods)) known += (known.empty() ? "" : ", ") + free;
  throw Error(ErrorCode::InvalidArgument, "'" + key + "' is no parameter of '" + setup.method +
                                              "' that can be solved for; there are: " + known + ".");
}

std::vector<std::int64_t> divisors(std::int64_t number) {
  std::vector<std::int64_t> result;
  for (std::int64_t d = 1; d * d <= number; ++d) {
    if (number % d != 0) continue;
    result.push_back(d);
    result.push_back(number / d);
  }
  return result;
}

/// Whole numbers worth trying in a wide range.
std::set<int> wide_range(const IntRange& range, const std::vector<std::int64_t>& widths) {
  std::set<int> values = {range.min, range.max};
  const auto add = [&](std::int64_t value) {
    if (value >= range.min && value <= range.max) values.insert(static_cast<int>(value));
  };
  for (std::int64_t small = 0; small <= 64; ++small) add(range.min + small);
  for (std::int64_t power = 1; power <= range.max; power *= 2) add(power), add(3 * power);
  for (const std::int64_t width : widths) {
    for (const std::int64_t divisor : divisors(width)) add(divisor);
  }
  return values;
}

double rounded(double value) {
  if (value == 0.0) return 0.0;
  const double scale = std::pow(10.0, 4.0 - std::ceil(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

class Search {
 public:
  using BitsOf = std::function<double(const Setup&)>;
  Search(Setup setup, Place place, const ParamSpec& spec, double target, std::vector<std::int64_t> widths, BitsOf bits)
      : setup_(std::move(setup)),
        place_(std::move(place)),
        spec_(spec),
        target_(target),
        widths_(std::move(widths)),
        bits_(std::move(bits)) {}

  void run() {
    try_value(part_of(setup_, place_).params.at(place_.key));
    if (const auto* choices = std::get_if<Choices>(&spec_.domain)) {
      for (const std::string& choice : choices->values) try_value(choice);
    } else if (std::holds_alternative<bool>(spec_.fallback)) {
      try_value(false), try_value(true);
    } else if (std::holds_alternative<int>(spec_.fallback)) {
      whole_numbers();
    } else {
      real_numbers();
    }
  }

  BitsSolution solution(const std::vector<MethodInfo>& methods) const {
    if (points_.empty()) {
      throw Error(ErrorCode::InvalidArgument,
                  "No value of '" + spec_.key + "' fits the model with the other parameters as they are: " + refusal_);
    }
    BitsSolution result{.key = spec_.key, .label = spec_.label, .target_bits = target_};
    result.tried = static_cast<std::int64_t>(points_.size());
    result.refused = refused_;
    result.first_refusal = refusal_;
    const auto by_bits = [](const BitsPoint& a, const BitsPoint& b) { return a.bits < b.bits; };
    result.least_bits = std::min_element(points_.begin(), points_.end(), by_bits)->bits;
    result.most_bits = std::max_element(points_.begin(), points_.end(), by_bits)->bits;
    // The first point is the setup as it came, and stays when others cost the same.
    const auto better_below = [](const std::optional<BitsPoint>& now, const BitsPoint& point) {
      return !now || point.bits > now->bits + kSameBits;
    };
    for (const BitsPoint& point : points_) {
      if (point.bits <= target_ + kSameBits) {
        if (better_below(result.best, point)) result.best = point;
      } else if (!result.above || point.bits < result.above->bits - kSameBits) {
        result.above = point;
      }
    }
    for (const BitsPoint& point : points_) {
      if (result.best && point.bits < result.best->bits - kSameBits && better_below(result.below, point))
        result.below = point;
    }
    for (std::optional<BitsPoint>* point : {&result.best, &result.below, &result.above}) {
      if (*point) (*point)->setup = format_setup(with((*point)->value), methods);
    }
    return result;
  }

 private:
  Setup with(const ParamValue& value) const {
    Setup changed = setup_;
    part_of(changed, place_).params[place_.key] = value;
    return changed;
  }

  /// Whether the value is new and fits.
  bool try_value(const ParamValue& value) {
    if (!tried_.insert(value).second || !check({spec_}, {{spec_.key, value}}).empty()) return false;
    try {
      points_.push_back({value, bits_(with(value)), {}});
      return true;
    } catch (const Error& error) {
      ++refused_;
      if (refusal_.empty()) refusal_ = error.what();
      return false;
    }
  }

  void whole_numbers() {
    const auto* range = std::get_if<IntRange>(&spec_.domain);
    const IntRange domain = range ? *range : IntRange{0, 65536};
    if (std::int64_t{domain.max} - domain.min <= kFewValues) {
      for (int value = domain.min; value <= domain.max; ++value) try_value(value);
      return;
    }
    for (const int value : wide_range(domain, widths_)) try_value(value);
    // What fits has a common step, such as the group of a window. Bits need not rise steadily with the value, so every
    // step is tried up to where the whole cache or row is reached.
    int step = 0;
    for (const BitsPoint& point : points_) step = std::gcd(step, std::get<int>(point.value));
    const std::int64_t last = std::min<std::int64_t>(domain.max, 2 * *std::max_element(widths_.begin(), widths_.end()));
    if (step > 0) {
      const std::int64_t stride = step * std::max<std::int64_t>(1, last / step / kMostSteps);
      for (std::int64_t value = stride; value <= last; value += stride) try_value(static_cast<int>(value));
    }
    for (int halving = 0; halving < kHalvings; ++halving) {
      const auto around = values_around_target<int>();
      if (!around || !try_between(around->first, around->second)) return;
    }
  }

  /// The middle of two values on the largest step that both share, then on finer ones: windows are multiples of groups.
  bool try_between(int low, int high) {
    for (int step = std::max(1, std::gcd(low, high)); step >= 1; step /= 2) {
      const int middle = low + (high - low) / 2 / step * step;
      if (middle > low && middle < high && try_value(middle)) return true;
    }
    return false;
  }

  void real_numbers() {
    const auto* range = std::get_if<RealRange>(&spec_.domain);
    const RealRange domain = range ? *range : RealRange{0.0, 1.0};
    for (int i = 0; i < kGridPoints; ++i)
      try_value(rounded(domain.min + (domain.max - domain.min) * i / (kGridPoints - 1)));
    try_value(domain.min), try_value(domain.max);
    for (int halving = 0; halving < kHalvings; ++halving) {
      const auto around = values_around_target<double>();
      if (!around) return;
      const double middle = rounded(0.5 * (around->first + around->second));
      if (middle <= around->first || middle >= around->second || !try_value(middle)) return;
    }
  }

  /// Neighbouring values, one with bits at most the target and one above it, whose lower bits are nearest to it.
  template <typename Number>
  std::optional<std::pair<Number, Number>> values_around_target() const {
    std::vector<const BitsPoint*> sorted;
    for (const BitsPoint& point : points_) sorted.push_back(&point);
    std::sort(sorted.begin(), sorted.end(), [](const BitsPoint* a, const BitsPoint* b) {
      return std::get<Number>(a->value) < std::get<Number>(b->value);
    });
    std::optional<std::pair<Number, Number>> found;
    double nearest = 0.0;
    for (std::size_t i = 1; i < sorted.size(); ++i) {
      const double low = std::min(sorted[i - 1]->bits, sorted[i]->bits);
      const double high = std::max(sorted[i - 1]->bits, sorted[i]->bits);
      if (low > target_ + kSameBits || high <= target_ + kSameBits) continue;
      if (std::abs(target_ - low) <= kSameBits) return std::nullopt;
      if (found && low <= nearest) continue;
      nearest = low;
      found.emplace(std::get<Number>(sorted[i - 1]->value), std::get<Number>(sorted[i]->value));
    }
    return found;
  }

  Setup setup_;
  Place place_;
  const ParamSpec& spec_;
  double target_;
  std::vector<std::int64_t> widths_;
  BitsOf bits_;
  std::set<ParamValue> tried_;
  std::vector<BitsPoint> points_;
  std::int64_t refused_ = 0;
  std::string refusal_;
};

BitsSolution solve(const Setup& setup, const std::string& key, double target, std::vector<std::int64_t> widths,
                   const std::vector<MethodInfo>& methods, const Search::BitsOf& bits) {
  if (!setup.layers.empty()) {
    throw Error(ErrorCode::InvalidArgument,
                "A setup that differs from layer to layer has no single value to solve for. Solve the setup of one "
                "range, or let `auto` choose a setup for each layer.");
  }
  if (!(target > 0.0) || !std::isfinite(target))
    throw Error(ErrorCode::InvalidArgument, "A target of bits must be above 0.");
  const Place place = place_of(setup, key, methods);
  Setup copy = setup;
  const MethodInfo& info = info_of(part_of(copy, place).method, methods);
  Search search(setup, place, *spec_of(info, place.key), target, std::move(widths), bits);
  search.run();
  return search.solution(methods);
}

}  // namespace

std::string BitsSolution::why_not() const {
  if (reached()) return {};
  const std::string range = most_bits - least_bits < kSameBits
                                ? "it does not change the bits, which are " + bits_text(least_bits)
                                : "it reaches " + bits_text(least_bits) + " to " + bits_text(most_bits) + " bits";
  return bits_text(target_bits) + " bits cannot be reached with '" + key + "': " + range +
         ", the other parameters as they are.";
}

std::vector<std::string> free_keys(const Setup& setup, const std::vector<MethodInfo>& methods) {
  std::vector<std::string> keys;
  if (!setup.layers.empty()) return keys;
  for (std::size_t part = 0; part <= setup.then.size(); ++part) {
    const Setup& of = part == 0 ? setup : setup.then[part - 1];
    for (const ParamSpec& spec : info_of(of.method, methods).params) {
      if (has_values(spec)) keys.push_back(part == 0 ? spec.key : of.method + "." + spec.key);
    }
  }
  return keys;
}

BitsSolution solve_kv_bits(const Setup& setup, const std::string& key, double target_bits, const BitsShape& shape) {
  const ArchitectureSpec& spec = shape.spec;
  return solve(setup, key, target_bits, {shape.tokens, spec.head_dim * spec.kv_heads}, kv_method_infos(),
               [&shape](const Setup& changed) { return kv_setup_bits(changed, shape); });
}

BitsSolution solve_weight_bits(const Setup& setup, const std::string& key, double target_bits, const BitsShape& shape) {
  const ArchitectureSpec& spec = shape.spec;
  return solve(setup, key, target_bits,
               {spec.hidden_size, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.intermediate_size},
               weight_method_infos(), [&shape](const Setup& changed) { return weight_setup_bits(changed, shape); });
}

}  // namespace qs

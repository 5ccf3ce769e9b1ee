#include "backend/methods/qaq_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "kernels/dispatch.h"

namespace qs {
namespace {

constexpr std::int64_t kPieceTokens = 512;
constexpr std::int64_t kIndexTokens = 64;
constexpr std::uint16_t kLast = 0x8000;

template <typename T>
T read_as(const std::byte* place) {
  T value;
  std::memcpy(&value, place, sizeof value);
  return value;
}

float read_value(const std::byte* place, std::int64_t bytes) {
  return bytes == 4 ? read_as<float>(place) : kernels::f16_to_f32(read_as<std::uint16_t>(place));
}

template <typename T>
void push(std::vector<std::byte>& record, T value) {
  const std::size_t end = record.size();
  record.resize(end + sizeof value);
  std::memcpy(record.data() + end, &value, sizeof value);
}

void push_value(std::vector<std::byte>& record, float value, std::int64_t bytes) {
  if (bytes == 4) {
    push(record, value);
  } else {
    push(record, kernels::f32_to_f16(value));
  }
}

}  // namespace

/// Walks records of a piece in order.
class QaqRows::Reader {
 public:
  Reader(const QaqRows& rows, const Piece& piece, std::int64_t token)
      : rows_(rows), piece_(piece), token_(token / kIndexTokens * kIndexTokens) {
    next_ = piece.records.data() +
            read_as<std::uint32_t>(piece.index.data() + token / kIndexTokens * sizeof(std::uint32_t));
    read_head();
    while (token_ < token) advance();
  }

  void advance() {
    next_ = codes_ + kernels::field_bytes(rows_.vector_ - outliers_, vector_.bits);
    if (++token_ < piece_.tokens) read_head();
  }

  /// Elements [begin, begin + count) of the vector. @param values, codes  room for count + 8
  void decode(std::int64_t begin, std::int64_t count, float* values, std::uint16_t* codes, float* row) const {
    std::int64_t before = 0;
    while (before < outliers_ && outlier_index(before) < begin) ++before;
    std::int64_t after = before;
    while (after < outliers_ && outlier_index(after) < begin + count) ++after;
    const std::int64_t first = begin - before, aligned = first / 8 * 8;
    const std::int64_t coded = count - (after - before);
    const bool direct = first == aligned && after == before;
    decode_codes(aligned, first - aligned + coded, codes, direct ? row : values);
    if (direct) return;
    const float* from = values + (first - aligned);
    std::int64_t done = 0;
    for (std::int64_t i = before; i < after; ++i) {
      const std::int64_t place = outlier_index(i) - begin;
      std::copy(from, from + (place - done), row + done);
      from += place - done;
      row[place] = read_value(outlier(i) + sizeof(std::uint16_t), rows_.value_bytes());
      done = place + 1;
    }
    std::copy(from, from + (count - done), row + done);
  }

 private:
  const std::byte* outlier(std::int64_t i) const {
    return next_ + i * (static_cast<std::int64_t>(sizeof(std::uint16_t)) + rows_.value_bytes());
  }
  std::int64_t outlier_index(std::int64_t i) const { return read_as<std::uint16_t>(outlier(i)) & ~kLast; }

  void read_head() {
    outliers_ = 0;
    if (rows_.settings_.outliers_ratio > 0.0)
      while ((read_as<std::uint16_t>(outlier(outliers_++)) & kLast) == 0) {
      }
    const std::byte* const parameters = outlier(outliers_);
    const std::int64_t bytes = rows_.value_bytes();
    vector_.bits = rows_.width_in(piece_, token_);
    vector_.scale = read_value(parameters, bytes);
    vector_.mean = rows_.settings_.symmetric ? 0.0f : read_value(parameters + bytes, bytes);
    codes_ = parameters + rows_.settings_.parameters() * bytes;
  }

  void decode_codes(std::int64_t first, std::int64_t count, std::uint16_t* codes, float* values) const {
    const auto* const packed = reinterpret_cast<const std::uint8_t*>(codes_) + first / 8 * vector_.bits;
    if (rows_.settings_.normal || vector_.bits == 0 || vector_.bits == 16) {
      kernels::unpack_fields(packed, count, vector_.bits, codes);
      qaq_decode(rows_.settings_, vector_, codes, count, values);
    } else {
      kernels::kernel_set().decode_fields({packed, count, vector_.bits, vector_.scale, vector_.mean}, values);
    }
  }

  const QaqRows& rows_;
  const Piece& piece_;
  std::int64_t token_, outliers_ = 0;
  const std::byte *next_ = nullptr, *codes_ = nullptr;
  QaqVector vector_;
};

QaqRows::QaqRows(std::int64_t kv_heads, std::int64_t head_dim, const QaqSettings& settings)
    : TokenStore(kv_heads, head_dim),
      settings_(settings),
      lanes_(settings.level == QaqLevel::Head ? kv_heads : 1),
      vector_(settings.level == QaqLevel::Head ? head_dim : kv_heads * head_dim) {}

void QaqRows::append(const float* rows, const double* tolerance, std::int64_t tokens) {
  if (tokens == 0) return;
  const std::int64_t first_piece = tokens_ / kPieceTokens, end = tokens_ + tokens;
  const std::int64_t pieces = (end + kPieceTokens - 1) / kPieceTokens;
  pieces_.resize(static_cast<std::size_t>(pieces * lanes_));
  const auto work = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t piece = first_piece + i / lanes_, lane = i % lanes_;
      const std::int64_t from = std::max(tokens_, piece * kPieceTokens) - tokens_;
      const std::int64_t to = std::min(end, (piece + 1) * kPieceTokens) - tokens_;
      append_to(pieces_[static_cast<std::size_t>(piece * lanes_ + lane)], rows + from * width() + lane * vector_,
                width(), tolerance == nullptr ? nullptr : tolerance + from * lanes_ + lane, to - from);
    }
  };
  const std::int64_t tasks = (pieces - first_piece) * lanes_;
  if (tokens >= kIndexTokens) {
    at::parallel_for(0, tasks, 1, work);
  } else {
    work(0, tasks);
  }
  tokens_ = end;
}

void QaqRows::append_to(Piece& piece, const float* vectors, std::int64_t stride, const double* tolerance,
                        std::int64_t tokens) const {
  std::vector<std::byte> records;
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(vector_));
  std::vector<std::uint16_t> codes(static_cast<std::size_t>(vector_));
  const std::int64_t stored = piece.records.bytes();
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* const x = vectors + t * stride;
    if (piece.tokens % kIndexTokens == 0) {
      const auto offset = static_cast<std::uint32_t>(stored + static_cast<std::int64_t>(records.size()));
      std::memcpy(piece.index.grow(sizeof offset), &offset, sizeof offset);
    }
    const std::int64_t outliers = qaq_outliers(x, vector_, settings_.outliers_ratio, mask.data());
    const QaqStatistics statistics = qaq_statistics(x, vector_, mask.data(), settings_.symmetric);
    const int bits =
        settings_.use_attentions ? qaq_width(settings_, statistics.range, tolerance[t * lanes_]) : settings_.n_bits;
    const QaqVector vector = qaq_encode(settings_, x, vector_, mask.data(), statistics, bits, codes.data());
    std::int64_t seen = 0, coded = 0;
    for (std::int64_t i = 0; i < vector_; ++i) {
      if (mask[static_cast<std::size_t>(i)] == 0) {
        codes[static_cast<std::size_t>(coded++)] = codes[static_cast<std::size_t>(i)];
        continue;
      }
      push(records, static_cast<std::uint16_t>(i | (++seen == outliers ? kLast : 0)));
      push_value(records, x[i], value_bytes());
    }
    push_value(records, vector.scale, value_bytes());
    if (!settings_.symmetric) push_value(records, vector.mean, value_bytes());
    const std::size_t place = records.size();
    records.resize(place + static_cast<std::size_t>(kernels::field_bytes(coded, vector.bits)));
    kernels::pack_fields(codes.data(), coded, vector.bits, reinterpret_cast<std::uint8_t*>(records.data() + place));

    const int offset = vector.bits - settings_.narrowest();
    if (settings_.width_bits() == 8) {
      *piece.widths.grow(1) = static_cast<std::byte>(offset);
    } else if (piece.tokens % 2 == 0) {
      *piece.widths.grow(1) = static_cast<std::byte>(offset);
    } else {
      piece.widths.data()[piece.tokens / 2] |= static_cast<std::byte>(offset << 4);
    }
    piece.outliers += outliers;
    ++piece.tokens;
  }
  std::copy(records.begin(), records.end(), piece.records.grow(records.size()));
}

int QaqRows::width_in(const Piece& piece, std::int64_t token) const {
  if (settings_.width_bits() == 8) return settings_.narrowest() + static_cast<int>(piece.widths.data()[token]);
  return settings_.narrowest() + ((static_cast<int>(piece.widths.data()[token / 2]) >> (token % 2 * 4)) & 15);
}

int QaqRows::width_of(std::int64_t token, std::int64_t lane) const {
  return width_in(pieces_.at(static_cast<std::size_t>(token / kPieceTokens * lanes_ + lane)), token % kPieceTokens);
}

void QaqRows::decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
                     std::int64_t row_stride) const {
  const bool by_head = settings_.level == QaqLevel::Head;
  const std::int64_t lane = by_head ? head : 0, first = by_head ? 0 : head * head_dim_;
  std::vector<float> values(static_cast<std::size_t>(head_dim_ + 8));
  std::vector<std::uint16_t> codes(static_cast<std::size_t>(head_dim_ + 8));
  for (std::int64_t token = begin; token < end;) {
    const std::int64_t piece = token / kPieceTokens, stop = std::min(end, (piece + 1) * kPieceTokens);
    Reader reader(*this, pieces_[static_cast<std::size_t>(piece * lanes_ + lane)], token % kPieceTokens);
    for (; token < stop; ++token, reader.advance())
      reader.decode(first, head_dim_, values.data(), codes.data(), rows + (token - begin) * row_stride);
  }
}

void QaqRows::add_bytes(CacheStats& stats) const {
  for (const Piece& piece : pieces_) {
    const std::int64_t outliers = piece.outliers * value_bytes();
    const std::int64_t marks = piece.outliers * static_cast<std::int64_t>(sizeof(std::uint16_t));
    const std::int64_t parameters = piece.tokens * value_bytes();
    stats.bytes_outliers += outliers;
    stats.bytes_indices += marks + piece.index.bytes();
    stats.bytes_scales += parameters;
    if (!settings_.symmetric) stats.bytes_zeros += parameters;
    stats.bytes_widths += piece.widths.bytes();
    stats.bytes_codes += piece.records.bytes() - outliers - marks - parameters * settings_.parameters();
  }
}

std::int64_t qaq_lane_bytes(const QaqSettings& settings, std::int64_t vector, std::int64_t tokens) {
  // Pieces hold whole index entries and an even number of widths.
  static_assert(kPieceTokens % kIndexTokens == 0 && kPieceTokens % 2 == 0);
  const std::int64_t outliers = qaq_regular_outliers(vector, settings.outliers_ratio), value = settings.value_bytes();
  const std::int64_t record = outliers * (value + static_cast<std::int64_t>(sizeof(std::uint16_t))) +
                              settings.parameters() * value +
                              kernels::field_bytes(vector - outliers, std::min(settings.widest(), 16));
  return tokens * record + (tokens * settings.width_bits() + 7) / 8 +
         (tokens + kIndexTokens - 1) / kIndexTokens * static_cast<std::int64_t>(sizeof(std::uint32_t));
}

}  // namespace qs

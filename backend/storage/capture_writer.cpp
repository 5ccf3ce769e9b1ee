#include "backend/storage/capture_writer.h"

#include <ATen/ATen.h>

#include "backend/storage/capture_reader.h"
#include "backend/storage/hdf5_commit_file.h"
#include "backend/storage/hdf5_thread.h"
#include "backend/storage/write_layer.h"
#include "backend/types/error.h"

namespace qs {

struct CaptureWriter::Impl {
  std::unique_ptr<hdf5::CommitFile> file;
  CaptureHeader header;
  CaptureStorage storage;
};

namespace {

void append_int32(hid_t file, const std::string& path, const std::vector<std::int32_t>& values,
                  const std::string& axes) {
  const auto count = static_cast<std::int64_t>(values.size());
  const hdf5::Dataset dataset =
      hdf5::exists(file, path) ? hdf5::open_dataset(file, path)
                               : hdf5::create_dataset(file, path, hdf5::ElementType::Int32, {0}, {1024}, 0, axes, "");
  if (values.empty()) return;
  const std::int64_t first = hdf5::shape_of(dataset)[0];
  hdf5::grow(dataset, 0, first + count);
  hdf5::write_block(dataset, hdf5::ElementType::Int32, {first}, {count}, values.data());
}

void append_tokens(hid_t file, const std::vector<std::int64_t>& ids, const std::vector<std::string>& texts) {
  std::vector<std::int32_t> positions;
  for (std::size_t i = 0; i < ids.size(); ++i) positions.push_back(static_cast<std::int32_t>(i));
  append_int32(file, "/tokens/ids", {ids.begin(), ids.end()}, "tokens");
  append_int32(file, "/tokens/position", positions, "tokens");
  hdf5::append_texts(file, "/tokens/text", texts, "tokens");
}

}  // namespace

at::ScalarType scalar_type(hdf5::ElementType type) {
  switch (type) {
    case hdf5::ElementType::Float16:
      return at::kHalf;
    case hdf5::ElementType::BFloat16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

hdf5::ElementType element_type(at::ScalarType type) {
  return type == at::kHalf       ? hdf5::ElementType::Float16
         : type == at::kBFloat16 ? hdf5::ElementType::BFloat16
                                 : hdf5::ElementType::Float32;
}

CaptureWriter::CaptureWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

CaptureWriter::~CaptureWriter() {
  if (pending_.valid()) pending_.wait();
  Hdf5Thread::instance().run([this] { impl_.reset(); });
}

std::unique_ptr<CaptureWriter> CaptureWriter::create(const std::filesystem::path& path, const CaptureHeader& header,
                                                     const CaptureStorage& storage) {
  auto impl = std::make_unique<Impl>();
  impl->header = header;
  impl->storage = storage;
  const std::filesystem::path part = path.string() + ".part";
  try {
    Hdf5Thread::instance().run([&] {
      try {
        impl->file = hdf5::CommitFile::create(part, path);
        write_header(impl->file->id(), header);
        append_tokens(impl->file->id(), {}, {});
        impl->file->commit();
        std::filesystem::remove(path.string() + ".journal");
        std::filesystem::rename(part, path);
      } catch (...) {
        impl->file.reset();
        throw;
      }
    });
  } catch (const std::filesystem::filesystem_error& e) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw Error(ErrorCode::Io,
                "Could not create '" + path.string() + "': " + e.code().message() + ". Choose another file.", e.what());
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw;
  }
  return std::unique_ptr<CaptureWriter>(new CaptureWriter(std::move(impl)));
}

std::unique_ptr<CaptureWriter> CaptureWriter::append(const std::filesystem::path& path, const CaptureHeader& header,
                                                     const CaptureStorage& storage) {
  const auto reader = CaptureReader::open(path);
  const CaptureInfo& old = reader->info();
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::InvalidArgument, "'" + path.string() + "' cannot be appended to: " + why);
  };
  if (!old.complete) throw refuse("it was cut off before its end. Capture into a new file.");
  if (old.model_fingerprint != header.info.model_fingerprint || old.layers != header.info.layers ||
      old.kv_heads != header.info.kv_heads || old.head_dim != header.info.head_dim || old.heads != header.info.heads) {
    throw refuse("it was made on the model '" + old.model_name + "', not on '" + header.info.model_name + "'.");
  }
  auto impl = std::make_unique<Impl>();
  impl->header = header;
  impl->storage = storage;
  impl->storage.planned_tokens += old.tokens;
  for (const DatasetInfo& dataset : old.datasets) {
    if (dataset.path != layer_dataset(0, "key") && dataset.path != layer_dataset(0, "value")) continue;
    const auto wanted = storage.type == hdf5::ElementType::Float16    ? "float16"
                        : storage.type == hdf5::ElementType::BFloat16 ? "bfloat16"
                                                                      : "float32";
    if (dataset.dtype != wanted) throw refuse("it stores " + dataset.dtype + ", the new part would be " + wanted + ".");
  }
  Hdf5Thread::instance().run([&] {
    impl->file = hdf5::CommitFile::open(path);
    const CaptureHeader there = read_header(impl->file->id(), path);
    if (there.window != header.window) {
      impl->file.reset();
      throw refuse("its windows have " + std::to_string(there.window) + " tokens, the new ones " +
                   std::to_string(header.window) + ".");
    }
    hdf5::set_attribute(impl->file->id(), "complete", std::int64_t{0});
  });
  auto writer = std::unique_ptr<CaptureWriter>(new CaptureWriter(std::move(impl)));
  writer->tokens_ = old.tokens;
  writer->holds_layers_ = true;
  return writer;
}

std::set<std::string> CaptureWriter::existing_taps() const {
  return Hdf5Thread::instance().run([this] {
    std::set<std::string> taps;
    for (const char* tap : {"key", "key_pre_rope", "value", "query", "query_pre_rope"}) {
      if (hdf5::exists(impl_->file->id(), layer_dataset(0, tap))) taps.insert(tap);
    }
    if (hdf5::exists(impl_->file->id(), layer_dataset(0, "log_sum_exp"))) taps.insert("attention");
    if (hdf5::exists(impl_->file->id(), "/activations")) taps.insert("activations");
    return taps;
  });
}

void CaptureWriter::begin_window(const std::vector<std::int64_t>& ids, const std::vector<std::string>& texts) {
  wait();
  Hdf5Thread::instance().run([&] {
    append_tokens(impl_->file->id(), ids, texts);
    impl_->file->commit();
  });
  tokens_ += static_cast<std::int64_t>(ids.size());
}

void CaptureWriter::write_layer(CapturedLayer layer) {
  wait();
  pending_ = Hdf5Thread::instance().submit([impl = impl_.get(), layer = std::move(layer)] {
    qs::write_layer(impl->file->id(), layer, impl->storage, impl->header.window);
    impl->file->commit();
  });
}

void CaptureWriter::write_weight(const std::string& name, const at::Tensor& weight) {
  wait();
  Hdf5Thread::instance().run([&] {
    const std::string path = "/weights/" + name;
    if (hdf5::exists(impl_->file->id(), path)) return;
    const at::Tensor data = weight.contiguous();
    const hdf5::Shape shape = data.sizes().vec();
    hdf5::Shape chunk;
    for (const std::int64_t extent : shape) chunk.push_back(std::min<std::int64_t>(extent, 256));
    const auto type = element_type(data.scalar_type());
    const hdf5::Dataset dataset =
        hdf5::create_dataset(impl_->file->id(), path, type, shape, chunk, -1,
                             shape.size() == 2 ? "out_features,in_features" : "features", name);
    hdf5::write_block(dataset, type, hdf5::Shape(shape.size(), 0), shape, data.data_ptr());
    impl_->file->commit();
  });
}

void CaptureWriter::wait() {
  if (!pending_.valid()) return;
  pending_.get();
  holds_layers_ = true;
}

void CaptureWriter::finish() {
  wait();
  Hdf5Thread::instance().run([&] {
    hdf5::set_attribute(impl_->file->id(), "complete", std::int64_t{1});
    impl_->file->commit();
  });
}

}  // namespace qs

#include "backend/methods/linear_quantizer.h"

#include <ATen/ATen.h>

#include "backend/types/error.h"

namespace qs {

const at::Tensor& artifact_tensor(const LinearArtifact& artifact, const std::string& name,
                                  std::optional<at::ScalarType> type, std::int64_t dims) {
  const auto found = artifact.tensors.find(name);
  if (found == artifact.tensors.end()) {
    throw Error(ErrorCode::BadFormat, "The checkpoint of '" + artifact.progress.linear + "' has no tensor '" + name +
                                          "'. Delete the file of this layer to quantize it again.");
  }
  const at::Tensor& tensor = found->second;
  if ((type && tensor.scalar_type() != *type) || tensor.dim() != dims) throw_broken_artifact(artifact, name);
  return tensor;
}

void throw_broken_artifact(const LinearArtifact& artifact, const std::string& name) {
  throw Error(ErrorCode::BadFormat, "Tensor '" + name + "' in the checkpoint of '" + artifact.progress.linear +
                                        "' is not what was written. Delete the file of this layer to quantize it "
                                        "again.");
}

}  // namespace qs

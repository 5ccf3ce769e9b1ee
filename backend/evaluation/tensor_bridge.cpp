#include "backend/evaluation/tensor_bridge.h"

#include <ATen/ATen.h>

namespace qs {

at::Tensor as_tensor(const TensorView& view) {
  // The deleter holds the view's owner, so that a result which shares this memory stays valid after the view is gone.
  return at::from_blob(
      const_cast<float*>(view.data), view.shape, [owner = view.owner](void*) {}, at::kFloat);
}

TensorView as_view(const at::Tensor& tensor) {
  auto held = std::make_shared<const at::Tensor>(tensor.to(at::kFloat).contiguous());
  TensorView view;
  view.data = held->data_ptr<float>();
  view.shape = held->sizes().vec();
  view.owner = std::move(held);
  return view;
}

}  // namespace qs

#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <thread>
#include <utility>

#include "backend/types/generation.h"

namespace qs {

/// What one column of the chat receives while a job runs: a generated token, or one step of a lock-step replay.
struct ChatEvent {
  TokenStep step;
  ReplayStep replay;
  bool is_replay = false;
  double seconds = 0.0;  ///< since the column started, when the token was there
};

/// Lock-free queue from one producing thread to one consuming thread. Nothing is lost: a producer that finds it full
/// waits.
class TokenRing {
 public:
  static constexpr std::size_t kCapacity = 1024;

  /// Producer. Waits while the ring is full, unless it was closed.
  void push(ChatEvent event) {
    const std::size_t at = head_.load(std::memory_order_relaxed);
    while (at - tail_.load(std::memory_order_acquire) == kCapacity) {
      if (closed_.load(std::memory_order_relaxed)) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    slots_[at % kCapacity] = std::move(event);
    head_.store(at + 1, std::memory_order_release);
  }

  /// Consumer. False when nothing is there.
  bool pop(ChatEvent& event) {
    const std::size_t at = tail_.load(std::memory_order_relaxed);
    if (at == head_.load(std::memory_order_acquire)) return false;
    event = std::move(slots_[at % kCapacity]);
    tail_.store(at + 1, std::memory_order_release);
    return true;
  }

  /// Consumer: nobody will read any more, so a waiting producer goes on.
  void close() { closed_.store(true, std::memory_order_relaxed); }

 private:
  std::array<ChatEvent, kCapacity> slots_;
  alignas(64) std::atomic<std::size_t> head_{0};
  alignas(64) std::atomic<std::size_t> tail_{0};
  std::atomic<bool> closed_{false};
};

}  // namespace qs

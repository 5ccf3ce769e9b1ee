#include "backend/formats/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "backend/formats/mapped_file.h"
#include "backend/types/error.h"

namespace qs {

struct Sha256::Context {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> md{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  if (!context_->md || EVP_DigestInit_ex(context_->md.get(), EVP_sha256(), nullptr) != 1)
    throw Error(ErrorCode::Internal, "SHA-256 is not available in this machine's OpenSSL.");
}

Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  if (EVP_DigestUpdate(context_->md.get(), bytes.data(), bytes.size()) != 1)
    throw Error(ErrorCode::Internal, "OpenSSL could not continue a SHA-256.");
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest = {};
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(context_->md.get(), digest.data(), &size) != 1 || size != digest.size())
    throw Error(ErrorCode::Internal, "OpenSSL could not finish a SHA-256.");
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(64);
  for (const unsigned char byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_hex(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

std::string sha256_file(const std::filesystem::path& path) { return sha256_hex(MappedFile::open(path)->bytes()); }

}  // namespace qs

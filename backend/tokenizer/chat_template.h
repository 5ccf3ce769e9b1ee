#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/tokenizer/tokenizer.h"
#include "backend/types/chat_format.h"

namespace qs {

/// The format that a model's own template (Jinja) writes, told by its distinctive parts; what varies within a kind
/// (default system message, spaces around [INST], empty thoughts) is read from the template too. Nothing is executed.
/// @return nullopt for a template that none of the known kinds explains
std::optional<ChatFormat> recognise_chat_template(std::string_view chat_template);

/// A stretch of a rendered chat: written by the template, or by somebody in a message.
struct ChatPiece {
  std::string text;
  bool from_template = false;
};

/// Writes the messages down. A system message that has no turn of its own goes into the first or last user turn.
/// @param open_reply  ends with the beginning of the assistant's next turn
std::vector<ChatPiece> render_chat(const ChatFormat& format, const std::vector<ChatMessage>& messages, bool open_reply,
                                   const Tokenizer& tokenizer);
std::string chat_text(const std::vector<ChatPiece>& pieces);

/// Special tokens in the template's own pieces become ids; in messages they stay text, so nobody can end a turn by
/// writing "<|im_end|>". What stands between two special tokens is encoded as one text.
/// @throws Error InvalidArgument when a message is not UTF-8
std::vector<std::int64_t> encode_chat(const Tokenizer& tokenizer, const std::vector<ChatPiece>& pieces);

/// The format that a choice means for a model: its own template when that is recognised and fits, else the usual form
/// of the kind; raw text when the choice is automatic and nothing is recognised.
ChatFormat choose_chat_format(const std::string& chat_template, const ChatTemplateChoice& choice);

/// One message and the beginning of its answer.
struct RenderedPrompt {
  std::string text;
  std::vector<std::int64_t> ids;
};
/// Raw text is continued as it is, behind BOS where the tokenizer puts one.
RenderedPrompt render_prompt(const Tokenizer& tokenizer, const ChatFormat& format, const std::string& system,
                             const std::string& user);

/// The template that lies beside or in a model, without loading its tokenizer; empty when there is none.
/// @throws Error BadFormat
std::string read_chat_template(const std::filesystem::path& model);

}  // namespace qs

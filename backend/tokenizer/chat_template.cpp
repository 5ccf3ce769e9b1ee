#include "backend/tokenizer/chat_template.h"

#include <algorithm>

#include "backend/formats/gguf.h"
#include "backend/tokenizer/tokenizer_files.h"
#include "backend/tokenizer/unicode.h"
#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

/// "\n" and quotes as a string literal of a template spells them.
std::string unescape(std::string_view literal) {
  std::string text;
  for (std::size_t i = 0; i < literal.size(); ++i) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      text.push_back(literal[i]);
      continue;
    }
    ++i;
    text.push_back(literal[i] == 'n' ? '\n' : literal[i] == 't' ? '\t' : literal[i]);
  }
  return text;
}

/// String literals of the template's code, in order.
std::vector<std::string> literals(std::string_view source) {
  std::vector<std::string> all;
  bool code = false;
  for (std::size_t i = 0; i + 1 < source.size(); ++i) {
    if (source[i] == '{' && (source[i + 1] == '{' || source[i + 1] == '%')) code = true;
    if ((source[i] == '}' || source[i] == '%') && source[i + 1] == '}') code = false;
    if (!code || (source[i] != '\'' && source[i] != '"')) continue;
    const char quote = source[i];
    std::size_t end = i + 1;
    while (end < source.size() && source[end] != quote) end += source[end] == '\\' ? 2 : 1;
    if (end >= source.size()) break;
    all.push_back(unescape(source.substr(i + 1, end - i - 1)));
    i = end;
  }
  return all;
}

/// The message between `begin` and `end` inside one literal: a default that the template itself brings.
std::string fixed_message(const std::vector<std::string>& all, std::string_view begin, std::string_view end) {
  for (const std::string& literal : all) {
    const std::size_t at = literal.find(begin);
    if (at == std::string::npos) continue;
    const std::size_t from = at + begin.size(), to = literal.find(end, from);
    if (to != std::string::npos && to > from) return literal.substr(from, to - from);
  }
  return {};
}

/// The shortest literal that holds `marker`, or `usual`.
std::string literal_with(const std::vector<std::string>& all, std::string_view marker, const std::string& usual) {
  const std::string* best = nullptr;
  for (const std::string& literal : all) {
    if (has(literal, marker) && (!best || literal.size() < best->size())) best = &literal;
  }
  return best && best->size() <= marker.size() + 4 ? *best : usual;
}

void read_mistral(std::string_view source, const std::vector<std::string>& all, ChatFormat& format) {
  format.user_prefix = literal_with(all, "[INST]", format.user_prefix);
  format.user_suffix = literal_with(all, "[/INST]", format.user_suffix);
  if (has(source, "\" \" + message[\"content\"]") || has(source, "' ' + message['content']"))
    format.assistant_prefix = " ";
  if (has(source, "eos_token + ' '") || has(source, "eos_token+' '") || has(source, "eos_token + \" \""))
    format.assistant_suffix = "{eos} ";
  if (has(source, "[SYSTEM_PROMPT]")) {
    format.system_place = ChatFormat::SystemPlace::OwnTurn;
    format.system_prefix = literal_with(all, "[SYSTEM_PROMPT]", "[SYSTEM_PROMPT]");
    format.system_suffix = literal_with(all, "[/SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]");
  } else if (has(source, "loop.last and system_message")) {
    format.system_place = ChatFormat::SystemPlace::LastUserTurn;
  }
}

std::optional<ChatKind> kind_of(std::string_view source) {
  if (has(source, "<|im_sep|>")) return std::nullopt;
  if (has(source, "<|im_start|>") && has(source, "<|im_end|>")) return ChatKind::ChatMl;
  if (has(source, "<|start_header_id|>") && has(source, "<|eot_id|>")) return ChatKind::Llama3;
  if (has(source, "<start_of_turn>") && has(source, "<end_of_turn>")) return ChatKind::Gemma;
  if (has(source, "<|end|>") && has(source, "<|assistant|>") && has(source, "<|user|>")) return ChatKind::Phi3;
  if (has(source, "<|assistant|>") && has(source, "<|user|>") && has(source, "eos_token")) return ChatKind::Zephyr;
  if (has(source, "[INST]") && has(source, "[/INST]"))
    return has(source, "<<SYS>>") ? ChatKind::Llama2 : ChatKind::Mistral;
  if (has(source, "USER:") && has(source, "ASSISTANT:")) return ChatKind::Vicuna;
  return std::nullopt;
}

std::string trimmed(const std::string& text) {
  const std::vector<char32_t> characters = utf8::to_code_points(text);
  std::size_t begin = 0, end = characters.size();
  while (begin < end && unicode::is_space(characters[begin])) ++begin;
  while (end > begin && unicode::is_space(characters[end - 1])) --end;
  std::string result;
  for (std::size_t i = begin; i < end; ++i) utf8::append(result, characters[i]);
  return result;
}

/// Bytes of white space that `text` begins with, ends with.
std::size_t space_before(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t length = utf8::length_of(static_cast<unsigned char>(text[at]));
    if (!unicode::is_space(utf8::to_code_points(text.substr(at, length)).front())) break;
    at += length;
  }
  return at;
}

void drop_space_behind(std::string& text) {
  while (!text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80) --at;
    if (!unicode::is_space(utf8::to_code_points(std::string_view(text).substr(at)).front())) return;
    text.resize(at);
  }
}

}  // namespace

std::optional<ChatFormat> recognise_chat_template(std::string_view source) {
  const auto kind = kind_of(source);
  if (!kind) return std::nullopt;
  ChatFormat format = usual_chat_format(*kind);
  const std::vector<std::string> all = literals(source);
  const bool knows_system = has(source, "system");
  switch (*kind) {
    case ChatKind::ChatMl:
      format.default_system = fixed_message(all, "<|im_start|>system\n", "<|im_end|>");
      if (has(source, "open_thinking")) format.assistant_opening = "<think>\n\n</think>\n\n";
      if (has(source, "bos_token")) format.start = "{bos}";
      break;
    case ChatKind::Llama3:
      if (has(source, "Cutting Knowledge Date")) {
        // The fixed date that the template falls back to, so that the same chat gives the same ids tomorrow.
        format.system_prefix += "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
        format.always_system = true;
      }
      break;
    case ChatKind::Phi3:
      if (has(source, "bos_token")) format.start = "{bos}";
      if (!knows_system) {
        format.system_place = ChatFormat::SystemPlace::FirstUserTurn;
        format.system_prefix.clear();
        format.system_suffix = "\n\n";
      }
      break;
    case ChatKind::Mistral:
      read_mistral(source, all, format);
      break;
    case ChatKind::Vicuna:
      if (!has(source, "A chat between")) format.default_system.clear();
      if (!has(source, "bos_token")) format.start.clear();
      break;
    default:
      break;
  }
  return format;
}

std::vector<ChatPiece> render_chat(const ChatFormat& format, const std::vector<ChatMessage>& messages, bool open_reply,
                                   const Tokenizer& tokenizer) {
  std::vector<ChatPiece> pieces;
  const auto name = [&](std::int64_t id) { return id >= 0 ? tokenizer.token_text(id) : std::string(); };
  const auto write = [&](std::string text) {
    for (const auto& [mark, id] : {std::pair{"{bos}", tokenizer.bos_id()}, std::pair{"{eos}", tokenizer.eos_id()}}) {
      const std::string_view what = mark;
      for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at))
        text.replace(at, what.size(), name(id));
    }
    if (!text.empty()) pieces.push_back({std::move(text), true});
  };
  const auto say = [&](const std::string& text) {
    std::string message = format.trims ? trimmed(text) : text;
    if (!message.empty()) pieces.push_back({std::move(message), false});
  };
  std::string system = format.default_system;
  bool has_system = format.always_system || !system.empty();
  for (const ChatMessage& message : messages) {
    if (message.role != ChatRole::System) continue;
    system = message.text;
    has_system = true;
    break;
  }
  std::size_t first_user = messages.size(), last_user = messages.size();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != ChatRole::User) continue;
    if (first_user == messages.size()) first_user = i;
    last_user = i;
  }
  const std::size_t system_turn = format.system_place == ChatFormat::SystemPlace::FirstUserTurn  ? first_user
                                  : format.system_place == ChatFormat::SystemPlace::LastUserTurn ? last_user
                                                                                                 : messages.size();
  const auto write_system = [&] {
    write(format.system_prefix);
    say(system);
    write(format.system_suffix);
  };
  write(format.start);
  if (has_system && format.system_place == ChatFormat::SystemPlace::OwnTurn) write_system();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == ChatRole::User) {
      write(format.user_prefix);
      if (has_system && i == system_turn) write_system();
      say(message.text);
      write(format.user_suffix);
    } else if (message.role == ChatRole::Assistant) {
      write(format.assistant_prefix + format.assistant_opening);
      say(message.text);
      write(format.assistant_suffix);
    }
  }
  if (!open_reply) return pieces;
  // The space before a reply belongs to its first token where words begin with one.
  std::string opening = format.assistant_prefix;
  if (format.kind == ChatKind::Llama2 || format.kind == ChatKind::Mistral || format.kind == ChatKind::Vicuna) {
    while (opening.ends_with(' ')) opening.pop_back();
  }
  write(opening + format.assistant_opening);
  return pieces;
}

std::string chat_text(const std::vector<ChatPiece>& pieces) {
  std::string text;
  for (const ChatPiece& piece : pieces) text += piece.text;
  return text;
}

std::vector<std::int64_t> encode_chat(const Tokenizer& tokenizer, const std::vector<ChatPiece>& pieces) {
  std::vector<std::int64_t> ids;
  std::string plain;
  bool swallow = false;  // the special token before takes the white space
  const auto flush = [&] {
    if (swallow) plain.erase(0, space_before(plain));
    if (plain.empty()) return;
    const auto more = tokenizer.encode(plain, {.special_tokens = false, .text_start = ids.empty()});
    ids.insert(ids.end(), more.begin(), more.end());
    plain.clear();
    swallow = false;
  };
  for (const ChatPiece& piece : pieces) {
    if (!piece.from_template) {
      if (utf8::first_invalid(piece.text) != std::string::npos) tokenizer.encode(piece.text);  // throws
      plain += piece.text;
      continue;
    }
    std::size_t done = 0;
    for (const SpecialMatch& match : tokenizer.find_special(piece.text)) {
      plain.append(piece.text, done, match.begin - done);
      if (match.token->strip_left) drop_space_behind(plain);
      flush();
      ids.push_back(match.token->id);
      swallow = match.token->strip_right;
      done = match.begin + match.token->name.size();
    }
    plain.append(piece.text, done);
  }
  flush();
  return ids;
}

ChatFormat choose_chat_format(const std::string& chat_template, const ChatTemplateChoice& choice) {
  const auto own = recognise_chat_template(chat_template);
  if (choice.automatic) return own.value_or(ChatFormat{});
  if (choice.kind == ChatKind::Custom) return choice.custom;
  return own && own->kind == choice.kind ? *own : usual_chat_format(choice.kind);
}

RenderedPrompt render_prompt(const Tokenizer& tokenizer, const ChatFormat& format, const std::string& system,
                             const std::string& user) {
  if (format.kind == ChatKind::Raw) {
    const std::string text = system.empty() ? user : system + "\n\n" + user;
    return {text, encode_with_bos(tokenizer, text)};
  }
  std::vector<ChatMessage> messages;
  if (!system.empty()) messages.push_back({ChatRole::System, system});
  messages.push_back({ChatRole::User, user});
  const auto pieces = render_chat(format, messages, true, tokenizer);
  return {chat_text(pieces), encode_chat(tokenizer, pieces)};
}

std::string read_chat_template(const std::filesystem::path& model) {
  std::error_code ignored;
  if (is_gguf(model)) return std::string(GgufFile::read(model).text("tokenizer.chat_template").value_or(""));
  if (std::filesystem::is_directory(model, ignored)) return read_tokenizer_config(model).chat_template;
  if (model.extension() == ".json") return read_tokenizer_config(model.parent_path()).chat_template;
  return {};
}

}  // namespace qs

#pragma once

#include <string>
#include <vector>

namespace qs {

enum class ChatRole { System, User, Assistant };

struct ChatMessage {
  ChatRole role = ChatRole::User;
  std::string text;
};

enum class ChatKind { Raw, Llama2, Llama3, Mistral, ChatMl, Gemma, Phi3, Zephyr, Vicuna, Custom };

/// How the turns of a chat are written down for a model. "{bos}" and "{eos}" in the texts are the model's own tokens.
struct ChatFormat {
  enum class SystemPlace { OwnTurn, FirstUserTurn, LastUserTurn };

  ChatKind kind = ChatKind::Raw;
  std::string start;  ///< in front of everything: "{bos}"
  std::string system_prefix, system_suffix, user_prefix, user_suffix, assistant_prefix, assistant_suffix;
  std::string assistant_opening;  ///< what every reply begins with behind its prefix, such as an empty thought
  std::string default_system;     ///< the system message when none is given
  bool always_system = false;     ///< the system turn is written even when it is empty
  SystemPlace system_place = SystemPlace::OwnTurn;
  bool trims = false;  ///< messages lose the white space around them

  bool operator==(const ChatFormat&) const = default;
};

/// What the user wants: the model's own template, or a kind of their choice.
struct ChatTemplateChoice {
  bool automatic = true;
  ChatKind kind = ChatKind::Raw;  ///< when not automatic
  ChatFormat custom;              ///< for ChatKind::Custom
  bool operator==(const ChatTemplateChoice&) const = default;
};

/// The usual form of a kind, for models that bring no template. Raw and Custom are empty formats.
ChatFormat usual_chat_format(ChatKind kind);

/// "chatml", "llama-3": the word in files and on the command line.
const char* chat_kind_id(ChatKind kind);
const char* chat_kind_name(ChatKind kind);  ///< "ChatML", "Llama 3"
/// @return false for an unknown id
bool chat_kind_from_id(const std::string& id, ChatKind& kind);
const std::vector<ChatKind>& all_chat_kinds();

}  // namespace qs

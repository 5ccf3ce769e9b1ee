#include "backend/types/chat_format.h"

namespace qs {
namespace {

struct Names {
  ChatKind kind;
  const char *id, *name;
};
constexpr Names kNames[] = {{ChatKind::Raw, "raw", "Raw text"},        {ChatKind::ChatMl, "chatml", "ChatML"},
                            {ChatKind::Llama2, "llama-2", "Llama 2"},  {ChatKind::Llama3, "llama-3", "Llama 3"},
                            {ChatKind::Mistral, "mistral", "Mistral"}, {ChatKind::Gemma, "gemma", "Gemma"},
                            {ChatKind::Phi3, "phi-3", "Phi-3"},        {ChatKind::Zephyr, "zephyr", "Zephyr"},
                            {ChatKind::Vicuna, "vicuna", "Vicuna"},    {ChatKind::Custom, "custom", "Custom"}};

const Names& names_of(ChatKind kind) {
  for (const Names& names : kNames)
    if (names.kind == kind) return names;
  return kNames[0];
}

ChatFormat turns(ChatKind kind, const std::string& before_role, const std::string& after_role, const std::string& end) {
  ChatFormat format;
  format.kind = kind;
  format.system_prefix = before_role + "system" + after_role;
  format.user_prefix = before_role + "user" + after_role;
  format.assistant_prefix = before_role + "assistant" + after_role;
  format.system_suffix = format.user_suffix = format.assistant_suffix = end;
  return format;
}

}  // namespace

const char* chat_kind_id(ChatKind kind) { return names_of(kind).id; }
const char* chat_kind_name(ChatKind kind) { return names_of(kind).name; }

bool chat_kind_from_id(const std::string& id, ChatKind& kind) {
  for (const Names& names : kNames) {
    if (id != names.id) continue;
    kind = names.kind;
    return true;
  }
  return false;
}

const std::vector<ChatKind>& all_chat_kinds() {
  static const auto kinds = [] {
    std::vector<ChatKind> all;
    for (const Names& names : kNames) all.push_back(names.kind);
    return all;
  }();
  return kinds;
}

ChatFormat usual_chat_format(ChatKind kind) {
  using Place = ChatFormat::SystemPlace;
  ChatFormat format;
  format.kind = kind;
  switch (kind) {
    case ChatKind::Raw:
    case ChatKind::Custom:
      break;
    case ChatKind::ChatMl:
      format = turns(kind, "<|im_start|>", "\n", "<|im_end|>\n");
      break;
    case ChatKind::Llama3:
      format = turns(kind, "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>");
      format.start = "{bos}";
      format.trims = true;
      break;
    case ChatKind::Phi3:
      format = turns(kind, "<|", "|>\n", "<|end|>\n");
      break;
    case ChatKind::Zephyr:
      format = turns(kind, "<|", "|>\n", "{eos}\n");
      break;
    case ChatKind::Llama2:
      format.system_place = Place::FirstUserTurn;
      format.system_prefix = "<<SYS>>\n";
      format.system_suffix = "\n<</SYS>>\n\n";
      format.user_prefix = "{bos}[INST] ";
      format.user_suffix = " [/INST]";
      format.assistant_prefix = " ";
      format.assistant_suffix = " {eos}";
      format.trims = true;
      break;
    case ChatKind::Mistral:
      format.start = "{bos}";
      format.system_place = Place::FirstUserTurn;
      format.system_suffix = "\n\n";
      format.user_prefix = "[INST] ";
      format.user_suffix = " [/INST]";
      format.assistant_suffix = "{eos}";
      break;
    case ChatKind::Gemma:
      format.start = "{bos}";
      format.system_place = Place::FirstUserTurn;
      format.system_suffix = "\n\n";
      format.user_prefix = "<start_of_turn>user\n";
      format.user_suffix = "<end_of_turn>\n";
      format.assistant_prefix = "<start_of_turn>model\n";
      format.assistant_suffix = "<end_of_turn>\n";
      format.trims = true;
      break;
    case ChatKind::Vicuna:
      format.start = "{bos}";
      format.system_suffix = " ";
      format.user_prefix = "USER: ";
      format.user_suffix = " ";
      format.assistant_prefix = "ASSISTANT: ";
      format.assistant_suffix = "{eos}";
      format.default_system =
          "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
          "detailed, and polite answers to the user's questions.";
      break;
  }
  return format;
}

}  // namespace qs

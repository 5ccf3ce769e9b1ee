#include "app/presenters/tokens_presenter.h"

#include "backend/tokenizer/chat_template.h"
#include "backend/tokenizer/inspection.h"

namespace qs {
namespace {

struct Shown {
  QVector<TokensView::Token> tokens;
  QString tokenizer, rendered, detected;
};

TokensView::Kind kind_of(TokenKind kind) {
  switch (kind) {
    case TokenKind::Byte:
      return TokensView::Kind::Byte;
    case TokenKind::Special:
      return TokensView::Kind::Special;
    case TokenKind::Unknown:
      return TokensView::Kind::Unknown;
    case TokenKind::Normal:
      break;
  }
  return TokensView::Kind::Normal;
}

TokensView::Token token_of(const Tokenizer& tokenizer, std::int64_t id) {
  return {id, QString::fromStdString(tokenizer.token_text(id)), kind_of(tokenizer.token_kind(id)),
          static_cast<int>(tokenizer.token_bytes(id).size())};
}

QVector<TokensView::Template> known_templates() {
  QVector<TokensView::Template> known;
  for (const ChatKind kind : all_chat_kinds()) {
    if (kind == ChatKind::Raw || kind == ChatKind::Custom) continue;
    known.append({QLatin1String(chat_kind_id(kind)), QLatin1String(chat_kind_name(kind))});
  }
  return known;
}

/// @param path  of the model. The tokenizer is read anew when another model is asked about
Shown inspect(const std::filesystem::path& path, const TokensView::Request& request) {
  const std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(path);
  Shown shown;
  shown.tokenizer =
      TokensView::tr("%1, %2 tokens").arg(QString::fromStdString(tokenizer->kind())).arg(tokenizer->vocab_size());
  if (const auto own = recognise_chat_template(tokenizer->chat_template()))
    shown.detected = QLatin1String(chat_kind_id(own->kind));
  const std::string text = request.text.toStdString();
  if (request.chatTemplate.isEmpty()) {
    EncodeOptions options;
    options.special_tokens = request.specialTokens;
    for (const std::int64_t id : tokenizer->prefix_ids()) shown.tokens.append(token_of(*tokenizer, id));
    for (const InspectedToken& token : inspect_text(*tokenizer, text, options).tokens) {
      TokensView::Token each = token_of(*tokenizer, token.id);
      each.bytes = static_cast<int>(token.end - token.begin);
      shown.tokens.append(each);
    }
    return shown;
  }
  ChatTemplateChoice choice;
  choice.automatic = request.chatTemplate == shown.detected;
  chat_kind_from_id(request.chatTemplate.toStdString(), choice.kind);
  const ChatFormat format = choose_chat_format(tokenizer->chat_template(), choice);
  const RenderedPrompt prompt = render_prompt(*tokenizer, format, request.system.toStdString(), text);
  shown.rendered = QString::fromStdString(prompt.text);
  for (const std::int64_t id : prompt.ids) shown.tokens.append(token_of(*tokenizer, id));
  return shown;
}

}  // namespace

TokensPresenter::TokensPresenter(Workbench& workbench, TokensView& view) : workbench_(workbench), view_(view) {
  connect(&workbench_, &Workbench::sessionReplaced, this, &TokensPresenter::showModels);
  connect(&workbench_, &Workbench::modelsChanged, this, &TokensPresenter::showModels);
  connect(&view_, &TokensView::requested, this, &TokensPresenter::tokenize);
  connect(&view_, &ViewBase::actionRequested, this, [this](const QString& action) {
    if (action == QLatin1String("view.retry")) tokenize();
  });
  QMetaObject::invokeMethod(this, &TokensPresenter::showModels, Qt::QueuedConnection);
}

void TokensPresenter::showModels() {
  QStringList ids;
  for (const ModelEntry& entry : workbench_.session().models) ids << entry.id;
  view_.setModels(ids, ids.value(0));
  if (ids.isEmpty()) {
    view_.setState(ViewState::Empty, TokensView::tr("No model is open."), QStringLiteral("model.load"),
                   TokensView::tr("Open a model…"));
    return;
  }
  tokenize();
}

void TokensPresenter::tokenize() {
  const TokensView::Request request = view_.request();
  const auto entry = workbench_.modelEntry(request.model);
  if (!entry) return;
  const quint64 generation = ++generation_;
  const QString path = workbench_.resolvePath(entry->path);
  workbench_.jobs().compute(
      TokensView::tr("Tokenize with %1").arg(request.model), view_.viewId(), JobLane::Interactive,
      [path, request](const JobContext&) { return inspect(std::filesystem::path(path.toStdU16String()), request); },
      this,
      [this, generation, request, path](const Shown& shown) {
        if (generation != generation_) return;
        Provenance p;
        p.session = workbench_.session().title;
        p.data = request.model;
        p.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
        p.command = QStringLiteral("quantoscope-cli tokenize %1 --text …").arg(path);
        view_.setProvenance(p);
        view_.setTemplates(known_templates(), shown.detected);
        view_.setTokens(shown.tokens, shown.tokenizer, shown.rendered);
      },
      [this, generation](const JobStatus& status) {
        if (generation != generation_ || status.state != JobState::Failed) return;
        view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), TokensView::tr("Retry"),
                       status.detail);
      });
}

}  // namespace qs

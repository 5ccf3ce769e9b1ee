#include "widgets/views/tokens_view.h"

#include <QCheckBox>
#include <QComboBox>
#include <QHeaderView>
#include <QJsonObject>
#include <QLabel>
#include <QLineEdit>
#include <QPainter>
#include <QPlainTextEdit>
#include <QSplitter>
#include <QTableView>
#include <QTimer>
#include <QVBoxLayout>
#include <algorithm>

#include "widgets/models/plain_table_model.h"
#include "widgets/views/token_flow.h"

namespace qs {
namespace {

constexpr int kTypingPauseMs = 120;

QString kind_text(TokensView::Kind kind) {
  switch (kind) {
    case TokensView::Kind::Byte:
      return TokensView::tr("byte");
    case TokensView::Kind::Special:
      return TokensView::tr("special");
    case TokensView::Kind::Unknown:
      return TokensView::tr("unknown");
    case TokensView::Kind::Normal:
      return TokensView::tr("normal");
  }
  return {};
}

}  // namespace

TokensView::TokensView(SelectionHub& hub, QWidget* parent)
    : ViewBase(QStringLiteral("tokens"), tr("Tokens"), hub, parent), table_(std::make_unique<PlainTableModel>()) {
  QBoxLayout* row = controlsLayout();
  models_ = addChoice("tokens_model", tr("&Model"), tr("Model whose tokenizer reads the text"));
  templates_ =
      addChoice("tokens_template", tr("&Template"), tr("Chat template that the text is put into as a user's message"));
  special_ = new QCheckBox(tr("Read s&pecial tokens"), this);
  special_->setObjectName(QStringLiteral("tokens_special"));
  special_->setToolTip(tr("Special tokens that are spelt out in the text become their ids; off: they stay plain text"));
  special_->setChecked(true);
  row->addWidget(special_);
  row->addStretch(1);

  auto* column = new QVBoxLayout(body());
  column->setContentsMargins(4, 0, 4, 4);
  auto* splitter = new QSplitter(Qt::Horizontal, body());
  splitter->setObjectName(QStringLiteral("tokens_splitter"));
  column->addWidget(splitter, 1);
  auto* left = new QWidget(splitter);
  auto* lines = new QVBoxLayout(left);
  lines->setContentsMargins(0, 0, 0, 0);
  system_ = new QLineEdit(left);
  system_->setObjectName(QStringLiteral("tokens_system"));
  system_->setAccessibleName(tr("System message"));
  system_->setPlaceholderText(tr("System message of the template (optional)"));
  lines->addWidget(system_);
  text_ = new QPlainTextEdit(left);
  text_->setObjectName(QStringLiteral("tokens_text"));
  text_->setAccessibleName(tr("Text to tokenize"));
  text_->setPlaceholderText(tr("Type or paste a text…"));
  text_->setPlainText(tr("The quick brown fox jumps over the lazy dog. 3.14159, naïve façade"));
  text_->setTabChangesFocus(true);
  lines->addWidget(text_, 1);
  rendered_ = new QPlainTextEdit(left);
  rendered_->setObjectName(QStringLiteral("tokens_rendered"));
  rendered_->setAccessibleName(tr("Rendered template"));
  rendered_->setToolTip(tr("The text after the template was filled in"));
  rendered_->setReadOnly(true);
  rendered_->setTabChangesFocus(true);
  rendered_->hide();
  lines->addWidget(rendered_, 1);
  flow_ = new TokenFlow(left);
  flow_->setObjectName(QStringLiteral("tokens_flow"));
  flow_->setAccessibleName(tr("Tokens in their text"));
  lines->addWidget(flow_, 2);
  list_ = new QTableView(splitter);
  list_->setObjectName(QStringLiteral("tokens_list"));
  list_->setAccessibleName(tr("List of tokens"));
  list_->setModel(table_.get());
  list_->setSelectionBehavior(QAbstractItemView::SelectRows);
  list_->setSelectionMode(QAbstractItemView::SingleSelection);
  list_->verticalHeader()->hide();
  list_->verticalHeader()->setDefaultSectionSize(list_->fontMetrics().height() + 6);
  list_->horizontalHeader()->setStretchLastSection(true);
  splitter->setStretchFactor(0, 3);
  splitter->setStretchFactor(1, 2);
  facts_ = new QLabel(body());
  facts_->setObjectName(QStringLiteral("tokens_facts"));
  facts_->setWordWrap(true);
  facts_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  column->addWidget(facts_);
  setFocusProxy(text_);

  typing_ = new QTimer(this);
  typing_->setSingleShot(true);
  typing_->setInterval(kTypingPauseMs);
  connect(typing_, &QTimer::timeout, this, [this] {
    Q_EMIT requested();
    Q_EMIT settingsChanged();
  });
  connect(text_, &QPlainTextEdit::textChanged, typing_, qOverload<>(&QTimer::start));
  connect(system_, &QLineEdit::textChanged, typing_, qOverload<>(&QTimer::start));
  connect(special_, &QCheckBox::toggled, typing_, qOverload<>(&QTimer::start));
  connect(models_, &QComboBox::activated, this, [this] {
    wanted_model_ = models_->currentData().toString();
    wanted_template_.clear();
    typing_->start();
  });
  connect(templates_, &QComboBox::activated, this, [this] {
    wanted_template_ = templates_->currentData().toString();
    typing_->start();
  });
  connect(flow_, &TokenFlow::tokenActivated, this, [this](int token) {
    flow_->setCurrent(token);
    list_->selectRow(token);
  });
  connect(list_->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& index) {
    if (!index.isValid()) return;
    flow_->setCurrent(index.row());
    const Token& token = tokens_[index.row()];
    Q_EMIT readoutChanged(tr("Token %1: id %2, '%3', %4, %5 bytes")
                              .arg(index.row())
                              .arg(token.id)
                              .arg(token.text, kind_text(token.kind))
                              .arg(token.bytes));
  });
  setState(ViewState::Empty, tr("No model is open."), QStringLiteral("model.load"), tr("Open a model…"));
}

TokensView::~TokensView() = default;

void TokensView::setModels(const QStringList& ids, const QString& current) {
  models_->clear();
  for (const QString& id : ids) models_->addItem(id, id);
  const QString wanted = ids.contains(wanted_model_) ? wanted_model_ : current;
  models_->setCurrentIndex(std::max(0, models_->findData(wanted)));
}

void TokensView::setTemplates(const QVector<Template>& templates, const QString& detected) {
  templates_->clear();
  templates_->addItem(tr("none: the text as it is"), QString());
  for (const Template& each : templates)
    templates_->addItem(each.id == detected ? tr("%1 (the model's own)").arg(each.title) : each.title, each.id);
  templates_->setCurrentIndex(std::max(0, templates_->findData(wanted_template_)));
}

TokensView::Request TokensView::request() const {
  return {models_->currentData().toString(), text_->toPlainText(), system_->text(),
          templates_->currentData().toString(), special_->isChecked()};
}

void TokensView::setTokens(const QVector<Token>& tokens, const QString& tokenizer, const QString& rendered) {
  tokens_ = tokens;
  QStringList texts;
  QVector<PlainTableModel::Row> rows;
  int bytes = 0;
  QHash<Kind, int> counts;
  for (int i = 0; i < tokens.size(); ++i) {
    const Token& token = tokens[i];
    texts << token.text;
    bytes += token.bytes;
    ++counts[token.kind];
    rows.append({i, token.id, token.text, kind_text(token.kind), token.bytes});
  }
  flow_->clear();
  flow_->append(texts);
  fillTints();
  table_->setTable({tr("Position"), tr("Id"), tr("Token"), tr("Kind"), tr("Bytes")}, rows);
  for (int column = 0; column < table_->columnCount(); ++column) list_->resizeColumnToContents(column);
  rendered_->setPlainText(rendered);
  rendered_->setVisible(!rendered.isEmpty());
  system_->setVisible(!request().chatTemplate.isEmpty());
  QString facts = tr("%1. %2 tokens for %3 bytes").arg(tokenizer).arg(tokens.size()).arg(bytes);
  if (!tokens.isEmpty())
    facts += tr(", %1 bytes a token").arg(static_cast<double>(bytes) / static_cast<double>(tokens.size()), 0, 'f', 2);
  for (const Kind kind : {Kind::Special, Kind::Byte, Kind::Unknown})
    if (counts.value(kind) > 0) facts += QStringLiteral(", %1 %2").arg(counts.value(kind)).arg(kind_text(kind));
  facts_->setText(facts + QLatin1Char('.'));
  setState(ViewState::Ready);
}

void TokensView::fillTints() {
  QVector<TokenTint> tints;
  for (int i = 0; i < tokens_.size(); ++i) {
    TokenTint tint;
    tint.kind = tokens_[i].kind == Kind::Byte || tokens_[i].kind == Kind::Unknown ? TokenTint::Kind::Warning
                                                                                  : TokenTint::Kind::Accent;
    tint.share = tokens_[i].kind == Kind::Special ? 0.55 : i % 2 == 0 ? 0.12 : 0.26;
    tint.underlined = tokens_[i].kind == Kind::Special;
    tints.append(tint);
  }
  flow_->setTints(tints);
}

void TokensView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.setFont(style.font);
  painter.setPen(style.foreground);
  const QFontMetricsF metrics(style.font, painter.device());
  painter.drawText(QRectF(target.left(), target.top(), target.width(), 2.0 * metrics.height()),
                   Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap, facts_->text());
  flow_->paint(painter, target.adjusted(0, 2.5 * metrics.height(), 0, 0), style);
  painter.restore();
}

QAbstractTableModel* TokensView::dataTable() { return table_.get(); }

QString TokensView::accessibleSummary() const { return facts_->text(); }

QJsonObject TokensView::saveSettings() const {
  const Request now = request();
  return {{QStringLiteral("model"), wanted_model_.isEmpty() ? now.model : wanted_model_},
          {QStringLiteral("text"), now.text},
          {QStringLiteral("system"), now.system},
          {QStringLiteral("template"), wanted_template_},
          {QStringLiteral("special_tokens"), now.specialTokens}};
}

void TokensView::restoreSettings(const QJsonObject& settings) {
  wanted_model_ = settings.value(QStringLiteral("model")).toString();
  wanted_template_ = settings.value(QStringLiteral("template")).toString();
  const QSignalBlocker quiet_text(text_), quiet_system(system_), quiet_special(special_);
  text_->setPlainText(settings.value(QStringLiteral("text")).toString(text_->toPlainText()));
  system_->setText(settings.value(QStringLiteral("system")).toString());
  special_->setChecked(settings.value(QStringLiteral("special_tokens")).toBool(true));
  models_->setCurrentIndex(std::max(0, models_->findData(wanted_model_)));
  templates_->setCurrentIndex(std::max(0, templates_->findData(wanted_template_)));
  Q_EMIT requested();
}

}  // namespace qs

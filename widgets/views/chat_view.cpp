#include "widgets/views/chat_view.h"

#include <QApplication>
#include <QClipboard>
#include <QComboBox>
#include <QHBoxLayout>
#include <QJsonArray>
#include <QKeyEvent>
#include <QLineEdit>
#include <QMenu>
#include <QPainter>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QScrollBar>
#include <QSplitter>
#include <QToolButton>
#include <QVBoxLayout>
#include <cmath>

#include "widgets/models/plain_table_model.h"
#include "widgets/selection_hub.h"
#include "widgets/views/chat_controls.h"
#include "widgets/views/chat_template_box.h"
#include "widgets/views/divergence_timeline.h"
#include "widgets/views/token_flow.h"

namespace qs {

namespace {

struct LibraryPrompt {
  const char* name;
  const char* text;
};
constexpr LibraryPrompt kLibrary[] = {
    {QT_TRANSLATE_NOOP("qs::ChatView", "Story"), "Once upon a time, there was a little girl named Lily. She"},
    {QT_TRANSLATE_NOOP("qs::ChatView", "Race puzzle"),
     "You are in a race and overtake the person in second place. Which place are you in now, and why?"},
    {QT_TRANSLATE_NOOP("qs::ChatView", "Knowledge distillation"),
     "Explain what knowledge distillation is and how a small model learns from a large one."},
    {QT_TRANSLATE_NOOP("qs::ChatView", "Needle"),
     "The secret number is 7481. Many other things happened that day, and nobody thought of it again. The secret "
     "number is"},
};

QToolButton* toolButton(QWidget* parent, const QString& name, const QString& text, const QString& tip) {
  auto* button = new QToolButton(parent);
  button->setObjectName(name);
  button->setText(text);
  button->setToolTip(tip);
  button->setAccessibleName(text);
  return button;
}

QComboBox* choice(QWidget* parent, const QString& name, const QString& accessible, const QString& tip,
                  const QStringList& items) {
  auto* box = new QComboBox(parent);
  box->setObjectName(name);
  box->setAccessibleName(accessible);
  box->setToolTip(tip);
  box->addItems(items);
  return box;
}

}  // namespace

ChatView::ChatView(SelectionHub& hub, QWidget* parent)
    : ViewBase(QStringLiteral("chat"), tr("Chat"), hub, parent), table_(std::make_unique<PlainTableModel>()) {
  makeControls();
  auto* column = new QVBoxLayout(body());
  column->setContentsMargins(6, 0, 6, 6);
  column->setSpacing(4);
  rows_ = new QSplitter(Qt::Vertical, body());
  rows_->setObjectName(QStringLiteral("chat_rows"));
  split_ = new QSplitter(Qt::Horizontal, rows_);
  split_->setObjectName(QStringLiteral("chat_columns"));
  split_->setChildrenCollapsible(false);
  timeline_ = new DivergenceTimeline(rows_);
  timeline_->setEmptyText(
      tr("The timeline shows the divergence of each variant per token once a reply was replayed in lock-step."));
  rows_->addWidget(split_);
  rows_->addWidget(timeline_);
  rows_->setStretchFactor(0, 3);
  rows_->setStretchFactor(1, 1);
  rows_->setSizes({600, 200});
  column->addWidget(rows_, 1);
  makePromptBox(body(), column);

  connect(timeline_, &DivergenceTimeline::tokenActivated, this, [this](int token) { selectToken(0, token); });
  connect(timeline_, &DivergenceTimeline::metricChanged, this, &ChatView::settingsChanged);
  connect(timeline_, &DivergenceTimeline::readout, this, &ChatView::readoutChanged);
  flush_timer_.setInterval(33);
  connect(&flush_timer_, &QTimer::timeout, this, &ChatView::flush);
  addColumn();
  setState(ViewState::Ready);
  updateButtons();
}

ChatView::~ChatView() {
  for (ChatColumn* column : columns_) column->ring()->close();
}

void ChatView::makeControls() {
  QBoxLayout* row = controlsLayout();
  mode_choice_ =
      choice(this, QStringLiteral("chat_mode"), tr("Colouring"),
             tr("Colour the tokens by nothing, by difference to the reference, by probability, or by KL divergence"),
             {tr("Plain"), tr("Diff to reference"), tr("Probability"), tr("KL divergence")});
  mode_choice_->setCurrentIndex(static_cast<int>(mode_));
  run_choice_ =
      choice(this, QStringLiteral("chat_run"), tr("Run mode"),
             tr("Free run: each variant continues its own text. Lock-step: variants are fed the reference's tokens"),
             {tr("Free run"), tr("Lock-step replay")});
  order_choice_ =
      choice(this, QStringLiteral("chat_order"), tr("Order"),
             tr("All columns at once, or one after another: needs memory for one cache and gives undisturbed speeds"),
             {tr("Together"), tr("One after another")});
  add_ = toolButton(this, QStringLiteral("add_column"), tr("+ Column"), tr("Add a variant to compare (up to three)"));
  determinism_ = toolButton(this, QStringLiteral("determinism"), tr("Check determinism"),
                            tr("Run the last message again and compare the tokens of each column"));
  copy_ = toolButton(this, QStringLiteral("copy_markdown"), tr("Copy table"),
                     tr("Copy prompt, settings and replies as a Markdown table; the menu saves them as a file"));
  auto* menu = new QMenu(copy_);
  menu->addAction(tr("Copy as Markdown"), this, [this] { QApplication::clipboard()->setText(asMarkdown()); });
  menu->addAction(tr("Save as HTML or Markdown…"), this, &ChatView::askAndSave)
      ->setObjectName(QStringLiteral("save_chat"));
  copy_->setMenu(menu);
  copy_->setPopupMode(QToolButton::MenuButtonPopup);
  for (QWidget* widget :
       std::initializer_list<QWidget*>{mode_choice_, run_choice_, order_choice_, add_, determinism_, copy_}) {
    row->addWidget(widget);
  }
  row->addStretch(1);
  connect(mode_choice_, &QComboBox::activated, this, [this](int index) { setMode(static_cast<ChatMode>(index)); });
  connect(run_choice_, &QComboBox::activated, this, &ChatView::settingsChanged);
  connect(order_choice_, &QComboBox::activated, this, &ChatView::settingsChanged);
  connect(add_, &QToolButton::clicked, this, [this] {
    if (columnCount() >= kMaxColumns) return;
    QStringList ids = columns();
    QString fresh;
    for (const ChatVariant& variant : variants_) {
      if (!ids.contains(variant.id)) {
        fresh = variant.id;
        break;
      }
    }
    if (fresh.isEmpty() && !variants_.isEmpty()) fresh = variants_.last().id;
    ids << fresh;
    setColumns(ids);
    Q_EMIT columnsChanged(ids);
    Q_EMIT settingsChanged();
  });
  connect(determinism_, &QToolButton::clicked, this, &ChatView::determinismRequested);
  connect(copy_, &QToolButton::clicked, this, [this] { QApplication::clipboard()->setText(asMarkdown()); });
}

void ChatView::makePromptBox(QWidget* parent, QBoxLayout* column) {
  auto* top = new QHBoxLayout;
  library_ = choice(parent, QStringLiteral("prompt_library"), tr("Prompt library"), tr("Fill in a known prompt"),
                    {tr("Prompts…")});
  for (const LibraryPrompt& prompt : kLibrary) library_->addItem(tr(prompt.name), QString::fromUtf8(prompt.text));
  connect(library_, &QComboBox::activated, this, [this](int index) {
    if (index > 0) setPrompt(library_->itemData(index).toString(), system_->text());
    library_->setCurrentIndex(0);
  });
  system_ = new QLineEdit(parent);
  system_->setObjectName(QStringLiteral("system_prompt"));
  system_->setAccessibleName(tr("System prompt"));
  system_->setPlaceholderText(tr("System prompt (optional)"));
  system_->setToolTip(tr("Sent as the system message; in front of the prompt when it is raw text"));
  system_->setMinimumWidth(90);
  template_ = new ChatTemplateBox(parent);
  top->addWidget(library_);
  top->addWidget(system_, 1);
  top->addWidget(template_);
  preview_ = toolButton(parent, QStringLiteral("prompt_tokens"), tr("Tokens…"),
                        tr("The prompt as it is sent, with the token ids of the reference's tokenizer"));
  connect(preview_, &QToolButton::clicked, this, [this] { Q_EMIT promptPreviewRequested(request()); });
  top->addWidget(preview_);
  column->addLayout(top);
  controls_ = new ChatControls(parent);
  column->addWidget(controls_);
  auto* bottom = new QHBoxLayout;
  prompt_ = new QPlainTextEdit(parent);
  prompt_->setObjectName(QStringLiteral("prompt"));
  prompt_->setAccessibleName(tr("Prompt"));
  prompt_->setToolTip(tr("Enter sends, Shift+Enter starts a new line, Esc stops"));
  prompt_->setPlaceholderText(tr("Write a prompt; Enter sends, Shift+Enter starts a new line"));
  prompt_->setTabChangesFocus(true);
  prompt_->setFixedHeight(prompt_->fontMetrics().lineSpacing() * 2 + 16);
  prompt_->installEventFilter(this);
  send_ = new QPushButton(tr("Send"), parent);
  send_->setObjectName(QStringLiteral("send"));
  send_->setToolTip(tr("Generate in all columns (Enter)"));
  stop_ = new QPushButton(tr("Stop"), parent);
  stop_->setObjectName(QStringLiteral("stop"));
  stop_->setToolTip(tr("Stop all columns (Esc); Ctrl+. stops the focused one"));
  bottom->addWidget(prompt_, 1);
  bottom->addWidget(send_);
  bottom->addWidget(stop_);
  column->addLayout(bottom);
  connect(send_, &QPushButton::clicked, this, &ChatView::send);
  connect(stop_, &QPushButton::clicked, this, [this] { Q_EMIT stopRequested(-1); });
  connect(controls_, &ChatControls::changed, this, &ChatView::settingsChanged);
  connect(template_, &ChatTemplateBox::changed, this, &ChatView::settingsChanged);
  connect(system_, &QLineEdit::editingFinished, this, &ChatView::settingsChanged);
}

ChatColumn* ChatView::addColumn() {
  const int number = columnCount();
  auto* column = new ChatColumn(number, split_);
  column->setChoices(variants_);
  split_->addWidget(column);
  columns_.append(column);
  connect(column, &ChatColumn::variantChosen, this, [this, number](const QString& id) {
    QStringList ids = columns();
    ids[number] = id;
    setColumns(ids);
    Q_EMIT columnsChanged(ids);
    Q_EMIT settingsChanged();
  });
  connect(column, &ChatColumn::removeRequested, this, [this, number] {
    QStringList ids = columns();
    ids.removeAt(number);
    setColumns(ids);
    Q_EMIT columnsChanged(ids);
    Q_EMIT settingsChanged();
  });
  connect(column, &ChatColumn::maximiseRequested, this,
          [this, number] { maximise(maximised_ == number ? -1 : number); });
  connect(column, &ChatColumn::columnFocused, this, [this, number] { focused_ = number; });
  connect(column, &ChatColumn::tokenActivated, this, [this, number](int token) { selectToken(number, token); });
  connect(column, &ChatColumn::tokenHovered, this, [this](int, const QString& text) { Q_EMIT readoutChanged(text); });
  return column;
}

void ChatView::setVariants(const QList<ChatVariant>& variants) {
  if (variants == variants_) return;
  variants_ = variants;
  for (ChatColumn* column : columns_) column->setChoices(variants);
  updateButtons();
}

void ChatView::setColumns(const QStringList& variantIds) {
  const int wanted = std::clamp(static_cast<int>(variantIds.size()), 1, kMaxColumns);
  if (running_ && wanted < columnCount()) Q_EMIT stopRequested(-1);
  while (columnCount() > wanted) {
    ChatColumn* column = columns_.takeLast();
    column->ring()->close();
    column->hide();
    column->deleteLater();
  }
  while (columnCount() < wanted) addColumn();
  for (int i = 0; i < std::min(wanted, static_cast<int>(variantIds.size())); ++i) {
    if (columns_[i]->variant().id == variantIds[i]) continue;
    columns_[i]->setVariant(variantIds[i]);
    columns_[i]->begin({}, ChatColumn::State::Idle);
  }
  focused_ = std::min(focused_, wanted - 1);
  maximise(-1);
  split_->setSizes(QList<int>(wanted, 1000));
  compareColumns();
  showTimeline();
  updateButtons();
}

QStringList ChatView::columns() const {
  QStringList ids;
  for (const ChatColumn* column : columns_) ids << column->variant().id;
  return ids;
}

ChatRequest ChatView::request() const {
  ChatRequest request;
  request.prompt = prompt_->toPlainText();
  request.system = system_->text();
  request.chatTemplate = template_->choice();
  request.sampling = controls_->options();
  request.variantIds = columns();
  request.lockStep = run_choice_->currentIndex() == 1;
  request.together = order_choice_->currentIndex() == 0;
  return request;
}

void ChatView::setPrompt(const QString& prompt, const QString& system) {
  prompt_->setPlainText(prompt);
  system_->setText(system);
  Q_EMIT settingsChanged();
}

void ChatView::setSampling(const SamplingOptions& options) { controls_->setOptions(options); }

void ChatView::setDetectedTemplate(bool hasTemplate, std::optional<ChatKind> kind) {
  template_->setDetected(hasTemplate, kind);
}

void ChatView::send() {
  if (running_ || prompt_->toPlainText().trimmed().isEmpty()) return;
  controls_->drawSeed();
  Q_EMIT sendRequested(request());
}

void ChatView::beginRun(const QString& shownPrompt, int promptTokens, bool lockStep, bool together) {
  running_ = true;
  lock_step_run_ = lockStep;
  shown_prompt_ = shownPrompt;
  setPromptTokens(promptTokens);
  for (int i = 0; i < columnCount(); ++i) {
    const bool now = i == 0 || (together && !lockStep);
    columns_[i]->begin(shownPrompt, now ? ChatColumn::State::Running : ChatColumn::State::Waiting);
    columns_[i]->setReplayed(lockStep && i > 0);
  }
  timeline_->setCurrent(-1);
  showTimeline();
  flush_timer_.start();
  updateButtons();
}

void ChatView::setPromptTokens(int tokens) {
  prompt_tokens_ = tokens;
  for (ChatColumn* column : columns_) column->setPromptTokens(tokens);
}

void ChatView::startColumn(int index) {
  if (index < columnCount()) columns_[index]->setState(ChatColumn::State::Running);
}

void ChatView::finishColumn(int index, ChatColumn::State state, const ChatStats& stats, const QString& message,
                            const QString& detail) {
  if (index >= columnCount()) return;
  columns_[index]->drain();
  ChatStats known = stats;
  if (known.secondsToFirst < 0) known.secondsToFirst = columns_[index]->stats().secondsToFirst;
  const ChatStats& live = columns_[index]->stats();
  if (known.tokensPerSecond <= 0) known.tokensPerSecond = live.tokensPerSecond;
  if (known.kvBytes < 0) known.kvBytes = live.kvBytes, known.kvBytesIfF16 = live.kvBytesIfF16;
  if (known.context <= 0) known.context = live.context;
  columns_[index]->setStats(known);
  columns_[index]->setState(state, message, detail);
  compareColumns();
  recolour();
}

void ChatView::endRun() {
  flush();
  running_ = false;
  flush_timer_.stop();
  for (ChatColumn* column : columns_) {
    if (column->state() == ChatColumn::State::Waiting || column->state() == ChatColumn::State::Running) {
      column->setState(ChatColumn::State::Cancelled);
    }
  }
  compareColumns();
  recolour();
  showTimeline();
  updateButtons();
}

void ChatView::flush() {
  bool any = false, replayed = false;
  for (ChatColumn* column : columns_) {
    const std::size_t before = column->replaySteps().size();
    any |= column->drain();
    replayed |= column->replaySteps().size() != before;
  }
  if (!any) return;
  compareColumns();
  recolour();
  if (replayed) showTimeline();
}

void ChatView::compareColumns() {
  if (columns_.isEmpty()) return;
  const ChatColumn* reference = columns_.first();
  int earliest = -1;
  const auto ended = [](const ChatColumn* c) { return c->state() == ChatColumn::State::Done; };
  for (int i = 1; i < columnCount(); ++i) {
    columns_[i]->compareWith(reference->steps(), ended(reference) && ended(columns_[i]));
    const auto& divergence = columns_[i]->divergence();
    columns_[i]->setMarker(divergence ? static_cast<int>(divergence->index) : -1);
    if (divergence && (earliest < 0 || divergence->index < earliest)) earliest = static_cast<int>(divergence->index);
  }
  columns_.first()->setMarker(earliest);
}

void ChatView::recolour() {
  for (ChatColumn* column : columns_) column->colour(mode_, columns_.first()->steps());
}

void ChatView::showTimeline() {
  // "RTN-2 · model" is called RTN-2 when all columns are of that model.
  static const QString kBetween = QStringLiteral(" · ");
  const QString model = columns_.first()->variant().name.section(kBetween, -1);
  const QString ending = kBetween + model;
  const bool oneModel = std::all_of(columns_.begin(), columns_.end(), [&](const ChatColumn* column) {
    return column->variant().name.endsWith(ending) && column->variant().name.size() > ending.size();
  });
  QVector<DivergenceTimeline::Line> lines;
  for (int i = 1; i < columnCount(); ++i) {
    const ChatColumn* column = columns_[i];
    if (column->replaySteps().empty()) continue;
    DivergenceTimeline::Line line;
    line.name = column->variant().name;
    if (oneModel) line.name.chop(ending.size());
    line.letter = QString(QChar(u'A' + i));
    for (const ReplayStep& step : column->replaySteps()) {
      line.kl.append(step.kl_nats);
      line.probabilityChange.append(step.probability_change);
    }
    if (column->divergence()) line.divergence = static_cast<int>(column->divergence()->index);
    lines.append(line);
  }
  timeline_->setLines(lines);
}

void ChatView::setMode(ChatMode mode) {
  mode_ = mode;
  mode_choice_->setCurrentIndex(static_cast<int>(mode));
  recolour();
  Q_EMIT settingsChanged();
}

void ChatView::maximise(int column) {
  maximised_ = column < columnCount() ? column : -1;
  for (int i = 0; i < columnCount(); ++i) columns_[i]->setVisible(maximised_ < 0 || i == maximised_);
}

void ChatView::selectToken(int column, int token) {
  if (columns_.isEmpty()) return;
  for (ChatColumn* each : columns_) each->flow()->setCurrent(token < each->flow()->count() ? token : -1);
  timeline_->setCurrent(token);
  Q_EMIT readoutChanged(columns_[column]->tokenText(token));
  if (isLinked()) {
    hub().edit([&](Selection& s) {
      s.tokenBegin = prompt_tokens_ + token;
      s.tokenEnd = s.tokenBegin + 1;
    });
  }
}

void ChatView::selectionChanged() {
  const Selection& selection = hub().selection();
  const int token = selection.tokenBegin - prompt_tokens_;
  const bool single = selection.tokenEnd == selection.tokenBegin + 1;
  for (ChatColumn* column : columns_)
    column->flow()->setCurrent(single && token >= 0 && token < column->flow()->count() ? token : -1);
}

void ChatView::updateButtons() {
  send_->setEnabled(!running_);
  stop_->setEnabled(running_);
  add_->setEnabled(columnCount() < kMaxColumns && !running_);
  const bool any = !columns_.isEmpty() && !columns_.first()->steps().empty();
  determinism_->setEnabled(!running_ && any);
  copy_->setEnabled(any);
}

bool ChatView::eventFilter(QObject* watched, QEvent* event) {
  if (watched == prompt_ && event->type() == QEvent::KeyPress) {
    auto* key = static_cast<QKeyEvent*>(event);
    if (key->key() == Qt::Key_Return || key->key() == Qt::Key_Enter) {
      if (key->modifiers().testFlag(Qt::ShiftModifier)) {
        prompt_->insertPlainText(QStringLiteral("\n"));
      } else {
        send();
      }
      return true;
    }
    if (key->key() == Qt::Key_Escape && running_) {
      Q_EMIT stopRequested(-1);
      return true;
    }
  }
  return ViewBase::eventFilter(watched, event);
}

void ChatView::keyPressEvent(QKeyEvent* event) {
  if (event->key() == Qt::Key_Escape && running_) {
    Q_EMIT stopRequested(-1);
  } else if (event->key() == Qt::Key_Period && event->modifiers().testFlag(Qt::ControlModifier) && running_) {
    Q_EMIT stopRequested(focused_);
  } else if (event->key() == Qt::Key_Z && event->modifiers() == Qt::NoModifier) {
    maximise(maximised_ < 0 ? focused_ : -1);
  } else {
    ViewBase::keyPressEvent(event);
  }
}

QString ChatView::accessibleSummary() const {
  QStringList parts;
  for (const ChatColumn* column : columns_) {
    QString text = tr("%1: %n tokens", nullptr, static_cast<int>(column->steps().size())).arg(column->variant().name);
    if (column->divergence()) text += tr(", diverges at token %1").arg(column->divergence()->index);
    if (column->state() == ChatColumn::State::Failed) text += tr(", failed: %1").arg(column->message());
    parts << text;
  }
  return parts.join(QStringLiteral("; "));
}

QJsonObject ChatView::saveSettings() const {
  const SamplingOptions o = controls_->options();
  return {{QStringLiteral("mode"), static_cast<int>(mode_)},
          {QStringLiteral("lockStep"), run_choice_->currentIndex() == 1},
          {QStringLiteral("together"), order_choice_->currentIndex() == 0},
          {QStringLiteral("timeline"), static_cast<int>(timeline_->metric())},
          {QStringLiteral("columns"), QJsonArray::fromStringList(columns())},
          {QStringLiteral("prompt"), prompt_->toPlainText()},
          {QStringLiteral("system"), system_->text()},
          {QStringLiteral("template"), template_->save()},
          {QStringLiteral("temperature"), o.temperature},
          {QStringLiteral("topP"), o.top_p},
          {QStringLiteral("topK"), o.top_k},
          {QStringLiteral("minP"), o.min_p},
          {QStringLiteral("repetitionPenalty"), o.repetition_penalty},
          {QStringLiteral("maxTokens"), o.max_tokens},
          {QStringLiteral("seed"), QString::number(o.seed)},
          {QStringLiteral("seedLocked"), controls_->seedLocked()}};
}

void ChatView::restoreSettings(const QJsonObject& settings) {
  const QSignalBlocker quiet(this);
  const auto value = [&](const char* key) { return settings.value(QLatin1String(key)); };
  setMode(static_cast<ChatMode>(std::clamp(value("mode").toInt(static_cast<int>(mode_)), 0, 3)));
  run_choice_->setCurrentIndex(value("lockStep").toBool() ? 1 : 0);
  order_choice_->setCurrentIndex(value("together").toBool(true) ? 0 : 1);
  timeline_->setMetric(value("timeline").toInt() == 1 ? DivergenceTimeline::Metric::ProbabilityChange
                                                      : DivergenceTimeline::Metric::Kl);
  QStringList ids;
  for (const QJsonValue& id : value("columns").toArray()) ids << id.toString();
  if (!ids.isEmpty()) setColumns(ids);
  setPrompt(value("prompt").toString(), value("system").toString());
  template_->restore(value("template").toObject());
  SamplingOptions o;
  o.temperature = value("temperature").toDouble(o.temperature);
  o.top_p = value("topP").toDouble(o.top_p);
  o.top_k = value("topK").toInt(o.top_k);
  o.min_p = value("minP").toDouble(o.min_p);
  o.repetition_penalty = value("repetitionPenalty").toDouble(o.repetition_penalty);
  o.max_tokens = value("maxTokens").toInt(o.max_tokens);
  o.seed = value("seed").toString().toULongLong();
  controls_->setOptions(o);
  controls_->setSeedLocked(value("seedLocked").toBool(true));
}

}  // namespace qs

#include "widgets/views/chat_column.h"

#include <QComboBox>
#include <QEvent>
#include <QHBoxLayout>
#include <QLabel>
#include <QPainter>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "widgets/models/dataset_tree_model.h"
#include "widgets/views/token_flow.h"

namespace qs {

namespace {

QString shown(const std::string& text) {
  QString token = QString::fromStdString(text);
  token.replace(u'\n', QStringLiteral("↵"));
  return token;
}

QString percent(double p) { return QStringLiteral("%1 %").arg(p * 100.0, 0, 'f', p < 0.1 ? 2 : 1); }

QString candidateTable(const QString& title, const std::vector<TokenCandidate>& top) {
  QString html =
      QStringLiteral("<td style='padding-right:14px' valign='top'><b>%1</b><table>").arg(title.toHtmlEscaped());
  for (const TokenCandidate& candidate : top) {
    html += QStringLiteral("<tr><td><code>%1</code>&nbsp;</td><td align='right'>%2</td></tr>")
                .arg(QStringLiteral("“%1”").arg(shown(candidate.text)).toHtmlEscaped(), percent(candidate.probability));
  }
  if (top.empty()) html += QStringLiteral("<tr><td>%1</td></tr>").arg(ChatColumn::tr("the text had ended"));
  return html + QStringLiteral("</table></td>");
}

QToolButton* smallButton(QWidget* parent, const QString& name, const QString& text, const QString& tip) {
  auto* button = new QToolButton(parent);
  button->setObjectName(name);
  button->setText(text);
  button->setToolTip(tip);
  button->setAccessibleName(tip);
  button->setAutoRaise(true);
  return button;
}

/// "24.9 / 177 KiB": the unit once where both have the same.
QString bytesOf(qint64 part, qint64 whole) {
  QString left = bytesText(part);
  const QString right = bytesText(whole), unit = right.section(u' ', -1);
  if (left.section(u' ', -1) == unit) left.chop(unit.size() + 1);
  return QStringLiteral("%1 / %2").arg(left, right);
}

}  // namespace

/// Phrases that wrap as a whole over at most `lines` lines. What does not fit is left out; a phrase that is wider than
/// the label ends in an ellipsis. text() is everything.
class PhraseLabel : public QLabel {
 public:
  PhraseLabel(int lines, QWidget* parent) : QLabel(parent), most_(lines) {
    setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
    setMinimumWidth(30);
  }
  void setPhrases(const QStringList& phrases) {
    phrases_ = phrases;
    setText(phrases.join(kBetween));
    updateGeometry();
    update();
  }
  QStringList lines(int width) const {
    const QFontMetrics metrics(small());
    QStringList lines;
    for (const QString& phrase : phrases_) {
      const QString longer = lines.isEmpty() ? phrase : lines.last() + kBetween + phrase;
      if (!lines.isEmpty() && metrics.horizontalAdvance(longer) <= width) {
        lines.last() = longer;
      } else if (lines.size() < most_) {
        lines << phrase;
      } else if (most_ == 1) {
        lines.last() = longer;  // one line ends in an ellipsis
      }
    }
    for (QString& line : lines) line = metrics.elidedText(line, Qt::ElideRight, width);
    return lines;
  }
  // Always the height of all lines, so that the texts of the columns begin at one height.
  QSize sizeHint() const override { return {150, most_ * QFontMetrics(small()).lineSpacing()}; }
  QSize minimumSizeHint() const override { return {30, sizeHint().height()}; }

 protected:
  void paintEvent(QPaintEvent*) override {
    QPainter painter(this);
    painter.setPen(palette().color(QPalette::WindowText));
    const QFontMetrics metrics(small());
    painter.setFont(small());
    int baseline = metrics.ascent();
    for (const QString& line : lines(width())) {
      painter.drawText(0, baseline, line);
      baseline += metrics.lineSpacing();
    }
  }

 private:
  QFont small() const {
    QFont font = this->font();
    font.setPixelSize(std::max(9, QFontInfo(font).pixelSize() - 1));
    return font;
  }
  static inline const QString kBetween = QStringLiteral(" · ");
  int most_;
  QStringList phrases_;
};

ChatColumn::ChatColumn(int number, QWidget* parent)
    : QFrame(parent), number_(number), ring_(std::make_shared<TokenRing>()) {
  setObjectName(QStringLiteral("chat_column_%1").arg(number));
  setFrameShape(QFrame::StyledPanel);
  setMinimumWidth(150);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(4, 4, 4, 4);
  column->setSpacing(2);
  auto* header = new QHBoxLayout;
  header->setSpacing(3);
  auto* letter = new QLabel(isReference() ? tr("Ref") : QString(QChar(u'A' + number)), this);
  QFont bold = letter->font();
  bold.setBold(true);
  letter->setFont(bold);
  header->addWidget(letter);
  choice_ = new QComboBox(this);
  choice_->setObjectName(QStringLiteral("variant_%1").arg(number));
  choice_->setAccessibleName(isReference() ? tr("Reference variant") : tr("Variant of column %1").arg(number + 1));
  choice_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  choice_->setMinimumContentsLength(8);
  header->addWidget(choice_, 1);
  maximise_ =
      smallButton(this, QStringLiteral("maximise_%1").arg(number), QStringLiteral("⤢"), tr("Maximise this column (Z)"));
  remove_ = smallButton(this, QStringLiteral("remove_%1").arg(number), QStringLiteral("✕"), tr("Remove this column"));
  header->addWidget(maximise_);
  header->addWidget(remove_);
  remove_->setVisible(!isReference());
  column->addLayout(header);

  bits_ = new PhraseLabel(1, this);
  bits_->setObjectName(QStringLiteral("bits_%1").arg(number));
  column->addWidget(bits_);
  live_ = new PhraseLabel(2, this);
  live_->setObjectName(QStringLiteral("live_%1").arg(number));
  column->addWidget(live_);
  auto* facts = new QHBoxLayout;
  badge_ = new QLabel(this);
  badge_->setObjectName(QStringLiteral("determinism_%1").arg(number));
  differs_ = smallButton(this, QStringLiteral("divergence_%1").arg(number), tr("≠ token %1").arg(0),
                         tr("Where and why this text leaves the reference"));
  QSizePolicy kept = differs_->sizePolicy();
  kept.setRetainSizeWhenHidden(true);
  differs_->setSizePolicy(kept);
  differs_->hide();
  facts->addWidget(differs_);
  facts->addStretch(1);
  facts->addWidget(badge_);
  column->addLayout(facts);
  failure_ = new QLabel(this);
  failure_->setObjectName(QStringLiteral("failure_%1").arg(number));
  failure_->setWordWrap(true);
  failure_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  failure_->setAccessibleName(tr("Why this column has no reply"));
  failure_->setToolTip(failure_->accessibleName());
  failure_->hide();
  column->addWidget(failure_);
  flow_ = new TokenFlow(this);
  flow_->setObjectName(QStringLiteral("text_%1").arg(number));
  flow_->setAccessibleName(isReference() ? tr("Text of the reference") : tr("Text of column %1").arg(number + 1));
  flow_->setToolTip(tr("Click a token to select it in all views"));
  flow_->installEventFilter(this);
  column->addWidget(flow_, 1);

  connect(choice_, &QComboBox::activated, this,
          [this](int index) { Q_EMIT variantChosen(choice_->itemData(index).toString()); });
  connect(maximise_, &QToolButton::clicked, this, &ChatColumn::maximiseRequested);
  connect(remove_, &QToolButton::clicked, this, &ChatColumn::removeRequested);
  connect(differs_, &QToolButton::clicked, this, &ChatColumn::showDivergence);
  connect(flow_, &TokenFlow::tokenActivated, this, [this](int token) {
    if (divergence_ && token == divergence_->index) showDivergence();
    Q_EMIT tokenActivated(token);
  });
  connect(flow_, &TokenFlow::tokenHovered, this, [this](int token) { Q_EMIT tokenHovered(token, tokenText(token)); });
  showHeader();
}

bool ChatColumn::eventFilter(QObject* watched, QEvent* event) {
  if (watched == flow_ && event->type() == QEvent::FocusIn) Q_EMIT columnFocused();
  return QFrame::eventFilter(watched, event);
}

void ChatColumn::resizeEvent(QResizeEvent* event) {
  QFrame::resizeEvent(event);
  showDivergenceBadge();
}

void ChatColumn::setChoices(const QList<ChatVariant>& variants) {
  choices_ = variants;
  choice_->clear();
  for (const ChatVariant& variant : variants) {
    choice_->addItem(variant.name, variant.id);
    choice_->setItemData(choice_->count() - 1, variant.setup, Qt::ToolTipRole);
  }
  setVariant(variant_.id);
}

void ChatColumn::setVariant(const QString& variantId) {
  const auto found =
      std::find_if(choices_.begin(), choices_.end(), [&](const ChatVariant& v) { return v.id == variantId; });
  variant_ = found == choices_.end() ? ChatVariant{variantId, variantId, {}, 16.0, 16.0, {}} : *found;
  choice_->setCurrentIndex(choice_->findData(variantId));
  showHeader();
}

void ChatColumn::begin(const QString& prompt, State state) {
  ring_->close();
  ring_ = std::make_shared<TokenRing>();
  steps_.clear();
  replay_.clear();
  arrival_.clear();
  divergence_.reset();
  same_.reset();
  stats_ = {};
  replayed_ = false;
  flow_->clear();
  flow_->setPrompt(prompt);
  setState(state);
}

bool ChatColumn::drain() {
  ChatEvent event;
  QStringList fresh;
  bool any = false;
  while (ring_->pop(event)) {
    any = true;
    if (event.is_replay) {
      replay_.push_back(std::move(event.replay));
      continue;
    }
    if (steps_.empty()) stats_.secondsToFirst = event.seconds;
    arrival_.push_back(event.seconds);
    fresh << QString::fromStdString(event.step.text);
    if (event.step.kv_bytes > 0) {
      stats_.kvBytes = event.step.kv_bytes;
      stats_.kvBytesIfF16 = event.step.kv_bytes_if_f16;
    }
    stats_.context = prompt_tokens_ + static_cast<int>(steps_.size()) + 1;
    steps_.push_back(std::move(event.step));
  }
  if (!fresh.isEmpty()) {
    flow_->append(fresh);
    if (state_ == State::Waiting) state_ = State::Running;
    if (state_ == State::Running && arrival_.size() > 1) {
      // Over the newest 64 tokens, so that the figure follows the growing cache.
      const std::size_t from = arrival_.size() > 65 ? arrival_.size() - 65 : 0;
      const double seconds = arrival_.back() - arrival_[from];
      if (seconds > 0) stats_.tokensPerSecond = static_cast<double>(arrival_.size() - 1 - from) / seconds;
    }
  }
  if (any) showHeader();
  return any;
}

void ChatColumn::setState(State state, const QString& message, const QString& detail) {
  state_ = state;
  message_ = message;
  detail_ = detail;
  const bool failed = state == State::Failed;
  failure_->setVisible(failed || !message.isEmpty());
  failure_->setText(message);
  if (!detail.isEmpty()) failure_->setToolTip(detail);
  QPalette palette = failure_->palette();
  const FigureStyle style = FigureStyle::screen(*this);
  palette.setColor(QPalette::WindowText, failed ? style.warning : style.muted);
  failure_->setPalette(palette);
  showHeader();
}

void ChatColumn::setStats(const ChatStats& stats) {
  stats_ = stats;
  showHeader();
}

void ChatColumn::setDeterminism(std::optional<bool> same) {
  same_ = same;
  showHeader();
}

QString ChatColumn::statsText() const {
  QStringList parts;
  switch (state_) {
    case State::Idle:
      break;
    case State::Waiting:
      parts << tr("waiting…");
      break;
    case State::Cancelled:
      parts << tr("stopped");
      break;
    case State::Failed:
      parts << tr("failed");
      break;
    case State::Running:
    case State::Done:
      break;
  }
  if (stats_.secondsToFirst >= 0) parts << tr("first token %1 s").arg(stats_.secondsToFirst, 0, 'f', 2);
  if (stats_.tokensPerSecond > 0)
    parts << tr("%1 tok/s").arg(stats_.tokensPerSecond, 0, 'f', stats_.tokensPerSecond < 100 ? 1 : 0);
  if (stats_.kvBytes >= 0) {
    const double ratio =
        stats_.kvBytesIfF16 > 0 ? static_cast<double>(stats_.kvBytes) / static_cast<double>(stats_.kvBytesIfF16) : 1.0;
    parts << tr("KV %1 of %2 f16 (%3 %)")
                 .arg(bytesText(stats_.kvBytes), bytesText(stats_.kvBytesIfF16))
                 .arg(100 * ratio, 0, 'f', 0);
  }
  if (stats_.maxContext > 0) parts << tr("context %1/%2").arg(stats_.context).arg(stats_.maxContext);
  return parts.join(QStringLiteral(" · "));
}

QStringList ChatColumn::figures() const {
  QStringList parts;
  if (state_ == State::Waiting) parts << tr("waiting…");
  if (state_ == State::Cancelled) parts << tr("stopped");
  if (state_ == State::Failed) parts << tr("failed");
  if (stats_.kvBytes >= 0) {
    parts << tr("KV %1 f16").arg(bytesOf(stats_.kvBytes, stats_.kvBytesIfF16));
    if (stats_.kvBytesIfF16 > 0)
      parts << QStringLiteral("%1 %").arg(
          100.0 * static_cast<double>(stats_.kvBytes) / static_cast<double>(stats_.kvBytesIfF16), 0, 'f', 0);
  }
  if (stats_.tokensPerSecond > 0) parts << tr("%1 tok/s").arg(stats_.tokensPerSecond, 0, 'f', 0);
  if (stats_.context > 0) parts << tr("ctx %1").arg(stats_.context);
  if (stats_.secondsToFirst >= 0) parts << tr("first %1 s").arg(stats_.secondsToFirst, 0, 'f', 2);
  return parts;
}

void ChatColumn::showHeader() {
  QStringList chip;
  if (!variant_.execution.isEmpty()) chip << variant_.execution;
  if (variant_.kvBits < 15.99 || variant_.weightBits < 15.99) {
    if (variant_.kvBits < 15.99) chip << tr("KV %1 bit").arg(variant_.kvBits, 0, 'f', 2);
    if (variant_.weightBits < 15.99) chip << tr("weights %1 bit").arg(variant_.weightBits, 0, 'f', 2);
  }
  bits_->setPhrases(chip);
  bits_->setToolTip(chip.isEmpty() ? variant_.setup : bits_->text() + u'\n' + variant_.setup);
  choice_->setToolTip(
      (variant_.name.isEmpty() ? QString() : variant_.name + u'\n') +
      (isReference() ? tr("The variant that the others are compared with") : tr("The variant of this column")));
  live_->setPhrases(figures());
  const QString all = statsText();
  live_->setToolTip((all.isEmpty() ? all : all + QStringLiteral("\n\n")) +
                    tr("KV: bytes of the live cache counted from its allocations against the same tokens in 16-bit "
                       "floats; tokens per second of decoding; context used; time to the first token"));
  const FigureStyle style = FigureStyle::screen(*this);
  badge_->setVisible(same_.has_value());
  if (same_) {
    badge_->setText(*same_ ? tr("repeats ✓") : tr("not repeated ✗"));
    badge_->setToolTip(*same_ ? tr("Two runs with this seed gave the same tokens")
                              : tr("Two runs with this seed gave different tokens"));
    QPalette palette = badge_->palette();
    palette.setColor(QPalette::WindowText,
                     *same_ ? QColor(style.background.lightnessF() < 0.5 ? "#3FD1A5" : "#00805C") : style.warning);
    badge_->setPalette(palette);
  }
  differs_->setVisible(divergence_.has_value());
  if (divergence_) differs_->setAccessibleName(tr("Diverges at token %1; show why").arg(divergence_->index));
  showDivergenceBadge();
}

void ChatColumn::showDivergenceBadge() {
  if (!divergence_) return;
  const QString brief = tr("≠ token %1").arg(divergence_->index);
  const QString whole = tr("≠ token %1 knife-edge").arg(divergence_->index);
  const int room = contentsRect().width() - 24 - (same_ ? badge_->sizeHint().width() + 4 : 0);
  const bool fits = differs_->fontMetrics().horizontalAdvance(whole) <= room;
  differs_->setText(divergence_->knife_edge && fits ? whole : brief);
}

void ChatColumn::compareWith(const std::vector<TokenStep>& reference, bool bothEnded) {
  if (isReference() || replayed_) return;
  if (divergence_ && !bothEnded) return;  // settled: ids before it do not change any more
  divergence_ = analysis::first_divergence(reference, steps_, bothEnded);
  if (divergence_) showHeader();
}

void ChatColumn::setMarker(int token) { flow_->setMarker(token, divergence_ && divergence_->knife_edge); }

void ChatColumn::colour(ChatMode mode, const std::vector<TokenStep>& reference) {
  flow_->setTints(tints(mode, reference));
}

QVector<TokenTint> ChatColumn::tints(ChatMode mode, const std::vector<TokenStep>& reference) const {
  using Kind = TokenTint::Kind;
  QVector<TokenTint> tints(flow_->count());
  for (int i = 0; i < flow_->count(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (mode == ChatMode::Probability && at < steps_.size()) {
      tints[i] = {Kind::Accent, 0.55 * (1.0 - std::exp(static_cast<double>(steps_[at].logprob)))};
    } else if (mode == ChatMode::Diff && !isReference()) {
      if (replayed_) {
        if (at < replay_.size() && !replay_[at].same_top1) tints[i] = {Kind::Warning, 0.45};
      } else if (divergence_ && i >= divergence_->index && at < steps_.size()) {
        const bool same = at < reference.size() && reference[at].id == steps_[at].id;
        tints[i] = {Kind::Warning, same ? 0.10 : 0.45};
      }
    } else if (mode == ChatMode::Kl && at < replay_.size()) {
      // 1e-4 nats is invisible, 1 nat is full colour.
      const double share = (std::log10(std::max(replay_[at].kl_nats, 1e-6)) + 4.0) / 4.0;
      tints[i] = {Kind::Warning, 0.6 * std::clamp(share, 0.0, 1.0), !replay_[at].same_top1};
    }
  }
  return tints;
}

QString ChatColumn::tokenText(int token) const {
  if (token < 0) return {};
  const auto at = static_cast<std::size_t>(token);
  QStringList parts{tr("%1 token %2").arg(variant_.name).arg(token)};
  if (at < steps_.size()) {
    parts << QStringLiteral("“%1” (id %2)").arg(shown(steps_[at].text)).arg(steps_[at].id)
          << tr("p %1").arg(percent(std::exp(static_cast<double>(steps_[at].logprob))));
  }
  if (at < replay_.size()) {
    parts << tr("KL %1 nats").arg(replay_[at].kl_nats, 0, 'g', 4)
          << tr("Δp %1").arg(replay_[at].probability_change, 0, 'f', 4)
          << (replay_[at].same_top1 ? tr("same top-1") : tr("other top-1"));
  }
  return parts.join(QStringLiteral(" | "));
}

QString ChatColumn::divergenceText() const {
  if (!divergence_) return {};
  const QString verdict =
      divergence_->reference_top.empty() ? tr("One text ended here, the other went on.")
      : divergence_->knife_edge
          ? tr("Knife-edge: the reference's own margin p1 − p2 is %1, below %2; a tiny error decides here.")
                .arg(divergence_->reference_margin, 0, 'f', 3)
                .arg(analysis::kKnifeEdgeMargin, 0, 'f', 2)
          : tr("Real disagreement: the reference's margin p1 − p2 is %1.")
                .arg(divergence_->reference_margin, 0, 'f', 3);
  return QStringLiteral("<b>%1</b><br>%2<table><tr>%3%4</tr></table>")
      .arg(tr("First divergence at token %1").arg(divergence_->index), verdict,
           candidateTable(tr("Reference"), divergence_->reference_top),
           candidateTable(variant_.name, divergence_->variant_top));
}

void ChatColumn::showDivergence() {
  if (!divergence_) return;
  auto* popover = new QFrame(this, Qt::Popup);
  popover->setObjectName(QStringLiteral("divergence_popover"));
  popover->setAttribute(Qt::WA_DeleteOnClose);
  popover->setFrameShape(QFrame::StyledPanel);
  popover->setAccessibleName(tr("First divergence"));
  auto* layout = new QVBoxLayout(popover);
  auto* text = new QLabel(divergenceText(), popover);
  text->setObjectName(QStringLiteral("divergence_text"));
  text->setTextFormat(Qt::RichText);
  text->setWordWrap(true);
  text->setMinimumWidth(320);
  layout->addWidget(text);
  popover->adjustSize();
  popover->move(differs_->mapToGlobal(QPoint(0, differs_->height())));
  popover->show();
}

void ChatColumn::setSingleHeaderLine(bool compact) { live_->setVisible(!compact); }

}  // namespace qs

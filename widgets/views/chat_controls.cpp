#include "widgets/views/chat_controls.h"

#include <QDoubleSpinBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QRandomGenerator>
#include <QRegularExpressionValidator>
#include <QSpinBox>
#include <QToolButton>

namespace qs {

namespace {

template <typename Box>
Box* named(Box* box, QHBoxLayout* row, const QString& name, const QString& label, const QString& tip) {
  box->setObjectName(name);
  box->setAccessibleName(label);
  box->setToolTip(tip);
  auto* text = new QLabel(label, box->parentWidget());
  text->setBuddy(box);
  row->addWidget(text);
  row->addWidget(box);
  return box;
}

}  // namespace

ChatControls::ChatControls(QWidget* parent) : QWidget(parent) {
  setObjectName(QStringLiteral("chat_controls"));
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(0, 0, 0, 0);
  row->setSpacing(4);
  const auto real = [&](const QString& name, const QString& label, const QString& tip, double low, double high,
                        double value) {
    auto* box = new QDoubleSpinBox(this);
    box->setRange(low, high);
    box->setDecimals(2);
    box->setSingleStep(0.05);
    box->setValue(value);
    connect(box, &QDoubleSpinBox::valueChanged, this, &ChatControls::changed);
    return named(box, row, name, label, tip);
  };
  const auto whole = [&](const QString& name, const QString& label, const QString& tip, int low, int high, int value) {
    auto* box = new QSpinBox(this);
    box->setRange(low, high);
    box->setValue(value);
    connect(box, &QSpinBox::valueChanged, this, &ChatControls::changed);
    return named(box, row, name, label, tip);
  };
  temperature_ = real(QStringLiteral("temperature"), tr("T"),
                      tr("Temperature; 0 takes the likeliest token every time (greedy)"), 0.0, 5.0, 0.0);
  temperature_->setSpecialValueText(tr("greedy"));
  top_p_ = real(QStringLiteral("top_p"), tr("top-p"),
                tr("Samples from the likeliest tokens that together have this probability; 1 is off"), 0.01, 1.0, 1.0);
  top_k_ = whole(QStringLiteral("top_k"), tr("top-k"), tr("Samples from this many likeliest tokens; 0 is off"), 0,
                 100000, 0);
  top_k_->setSpecialValueText(tr("off"));
  min_p_ = real(QStringLiteral("min_p"), tr("min-p"),
                tr("Drops tokens less likely than this share of the likeliest; 0 is off"), 0.0, 1.0, 0.0);
  penalty_ = real(QStringLiteral("repetition_penalty"), tr("rep."),
                  tr("Repetition penalty; above 1 makes used tokens less likely"), 0.5, 3.0, 1.0);
  max_tokens_ = whole(QStringLiteral("max_tokens"), tr("max"), tr("Longest answer in tokens"), 1, 100000, 128);
  seed_ = named(new QLineEdit(QStringLiteral("0"), this), row, QStringLiteral("seed"), tr("seed"),
                tr("The same seed gives the same text in every column and on the command line"));
  seed_->setValidator(new QRegularExpressionValidator(QRegularExpression(QStringLiteral("[0-9]{1,19}")), seed_));
  seed_->setMaximumWidth(110);
  connect(seed_, &QLineEdit::textEdited, this, &ChatControls::changed);
  lock_ = new QToolButton(this);
  lock_->setObjectName(QStringLiteral("seed_lock"));
  lock_->setCheckable(true);
  lock_->setChecked(true);
  lock_->setText(tr("locked"));
  lock_->setAccessibleName(tr("Lock the seed"));
  lock_->setToolTip(tr("Locked: every message uses this seed. Unlocked: a new one is drawn for each message"));
  connect(lock_, &QToolButton::toggled, this, [this](bool locked) {
    lock_->setText(locked ? tr("locked") : tr("new"));
    Q_EMIT changed();
  });
  row->addWidget(lock_);
  row->addStretch(1);
}

SamplingOptions ChatControls::options() const {
  SamplingOptions options;
  options.temperature = temperature_->value();
  options.top_p = top_p_->value();
  options.top_k = top_k_->value();
  options.min_p = min_p_->value();
  options.repetition_penalty = penalty_->value();
  options.max_tokens = max_tokens_->value();
  options.seed = seed_->text().toULongLong();
  return options;
}

void ChatControls::setOptions(const SamplingOptions& options) {
  const QSignalBlocker quiet(this);
  temperature_->setValue(options.temperature);
  top_p_->setValue(options.top_p);
  top_k_->setValue(options.top_k);
  min_p_->setValue(options.min_p);
  penalty_->setValue(options.repetition_penalty);
  max_tokens_->setValue(options.max_tokens);
  seed_->setText(QString::number(options.seed));
}

bool ChatControls::seedLocked() const { return lock_->isChecked(); }
void ChatControls::setSeedLocked(bool locked) { lock_->setChecked(locked); }

void ChatControls::drawSeed() {
  if (seedLocked() || temperature_->value() <= 0.0) return;
  seed_->setText(QString::number(QRandomGenerator::global()->generate()));
}

}  // namespace qs

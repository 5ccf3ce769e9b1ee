#include "app/welcome.h"

#include <QGridLayout>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

namespace qs {

WelcomePage::WelcomePage(QWidget* parent) : QWidget(parent) {
  setObjectName(QStringLiteral("welcome"));
  setAccessibleName(tr("Welcome"));
  auto* outer = new QVBoxLayout(this);
  outer->addStretch(2);
  auto* middle = new QHBoxLayout;
  middle->addStretch(1);
  auto* box = new QWidget(this);
  box->setMaximumWidth(760);
  auto* column = new QVBoxLayout(box);
  column->setSpacing(10);
  auto* title = new QLabel(tr("Quantoscope"), box);
  QFont font = title->font();
  font.setPointSizeF(font.pointSizeF() * 2);
  font.setBold(true);
  title->setFont(font);
  column->addWidget(title);
  auto* text = new QLabel(tr("Which quantization method, at which bit width, may be used on this model: what does it "
                             "break, where, and why?"),
                          box);
  text->setWordWrap(true);
  column->addWidget(text);
  column->addSpacing(12);

  const auto button = [&](const char* id, const QString& label, const QString& help, QGridLayout* grid, int row) {
    auto* result = new QPushButton(label, box);
    result->setObjectName(QStringLiteral("welcome.") + QLatin1String(id));
    result->setToolTip(help);
    result->setAccessibleName(result->text().remove(QLatin1Char('&')));
    result->setAccessibleDescription(help);
    result->setMinimumWidth(220);
    auto* note = new QLabel(help, box);
    note->setWordWrap(true);
    grid->addWidget(result, row, 0, Qt::AlignTop);
    grid->addWidget(note, row, 1);
    connect(result, &QPushButton::clicked, this, [this, id] { Q_EMIT actionRequested(QLatin1String(id)); });
    return result;
  };
  auto* begin = new QGridLayout;
  begin->setColumnStretch(1, 1);
  button("help.sample", tr("Open sample &session"),
         tr("Two bundled models, one with the outlier channels of large models. No network needed."), begin, 0);
  button("file.open_folder", tr("Open a &model..."),
         tr("A Hugging Face folder or hub cache entry, a GGUF or a llama2.c file."), begin, 1);
  button("file.open", tr("Open &HDF5 or session..."), tr("A capture made here or on a server, or a saved session."),
         begin, 2);
  column->addLayout(begin);

  column->addSpacing(16);
  auto* steps_title = new QLabel(tr("From a model to a comparison in four steps"), box);
  font = steps_title->font();
  font.setBold(true);
  steps_title->setFont(font);
  column->addWidget(steps_title);
  auto* grid = new QGridLayout;
  grid->setColumnStretch(1, 1);
  steps_ << button("file.open_folder", tr("1  Choose a model"), tr("Its memory need is estimated before it is loaded."),
                   grid, 0)
         << button("capture.kv", tr("2  Choose a text"),
                   tr("A few hundred tokens are enough to see outliers and locality."), grid, 1)
         << button("capture.kv", tr("3  Capture"),
                   tr("Size and time are shown first; keys, values and statistics go into one HDF5 file."), grid, 2)
         << button("quantize.new", tr("4  Pick two quantizers"),
                   tr("Compare them as A and B in every view, and in a chat."), grid, 3);
  for (int i = 0; i < steps_.size(); ++i) steps_[i]->setObjectName(QStringLiteral("welcome.step%1").arg(i + 1));
  column->addLayout(grid);
  middle->addWidget(box, 4);
  middle->addStretch(1);
  outer->addLayout(middle);
  outer->addStretch(3);
  setProgress(false, false, false);
}

void WelcomePage::setProgress(bool model, bool capture, bool quantizers) {
  const bool done[4] = {model, capture, capture, quantizers};
  const bool possible[4] = {true, model, model, model};
  for (int i = 0; i < 4; ++i) {
    auto* button = static_cast<QPushButton*>(steps_[i]);
    QString text = button->text();
    text.remove(QStringLiteral(" ✓"));
    button->setText(done[i] ? text + QStringLiteral(" ✓") : text);
    button->setEnabled(possible[i]);
  }
}

}  // namespace qs

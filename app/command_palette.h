#pragma once

#include <QDialog>
#include <QList>
#include <QStringList>
#include <functional>

class QLineEdit;
class QListWidget;

namespace qs {

class ActionTable;

/// One thing the palette can do besides actions.
struct PaletteEntry {
  QString text, hint;
  std::function<void()> run;
};

/// Finds commands, tensors, layers and tokens by typing. `@` lists tensors, `#` layers, `:` tokens, `>` variants;
/// anything else actions. Opened with Ctrl+Shift+P.
class CommandPalette : public QDialog {
  Q_OBJECT
 public:
  using Source = std::function<QList<PaletteEntry>(const QString& query)>;
  CommandPalette(ActionTable& actions, QWidget* parent);

  /// Entries for texts that begin with `prefix`; the query comes without it.
  void addSource(QChar prefix, const QString& name, Source source);
  void open(const QString& text = {});  // NOLINT: hides QDialog::open on purpose

  /// Whether all letters of `query` occur in order in `text`; a smaller score is a closer match, -1 is none.
  static int score(const QString& query, const QString& text);

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void refresh();
  void runCurrent();

  struct Prefixed {
    QChar prefix;
    QString name;
    Source source;
  };
  ActionTable& actions_;
  QLineEdit* edit_;
  QListWidget* list_;
  QList<Prefixed> sources_;
  QList<PaletteEntry> shown_;
};

}  // namespace qs

#pragma once

#include <QVector>
#include <memory>

#include "widgets/view_base.h"

class QCheckBox;
class QComboBox;
class QLabel;
class QLineEdit;
class QPlainTextEdit;
class QTableView;
class QTimer;

namespace qs {

class PlainTableModel;
class TokenFlow;

/// The tokenizer inspector: a text, or a chat message in the model's template, as the ids that the model sees.
class TokensView : public ViewBase {
  Q_OBJECT
 public:
  enum class Kind { Normal, Byte, Special, Unknown };
  struct Token {
    qint64 id = 0;
    QString text;  ///< for display; bytes as <0x0A>
    Kind kind = Kind::Normal;
    int bytes = 0;  ///< that it adds to the text
  };
  struct Template {
    QString id, title;
  };
  /// What is asked for now.
  struct Request {
    QString model, text, system, chatTemplate;  ///< template "": the text as it is
    bool specialTokens = true;
    bool operator==(const Request&) const = default;
  };

  explicit TokensView(SelectionHub& hub, QWidget* parent = nullptr);
  ~TokensView() override;

  void setModels(const QStringList& ids, const QString& current);
  void setTemplates(const QVector<Template>& templates, const QString& detected);
  /// @param tokenizer  its kind and size, in words; @param rendered  the text after the template; empty without one
  void setTokens(const QVector<Token>& tokens, const QString& tokenizer, const QString& rendered);
  Request request() const;

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;
  QJsonObject saveSettings() const override;
  void restoreSettings(const QJsonObject& settings) override;

 Q_SIGNALS:
  void requested();  ///< request() changed

 private:
  void fillTints();

  QComboBox *models_, *templates_;
  QCheckBox* special_;
  QLineEdit* system_;
  QPlainTextEdit *text_, *rendered_;
  TokenFlow* flow_;
  QTableView* list_;
  QLabel* facts_;
  std::unique_ptr<PlainTableModel> table_;
  QTimer* typing_;
  QVector<Token> tokens_;
  QString wanted_model_, wanted_template_;
};

}  // namespace qs

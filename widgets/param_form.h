#pragma once

#include <QString>
#include <QWidget>
#include <map>
#include <vector>

#include "backend/types/method_info.h"
#include "backend/types/param_spec.h"

class QComboBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QToolButton;

namespace qs {

/// Editors for declared parameters, made from their types alone. An editor's object name is the parameter's key. A
/// value that differs from the chosen preset is marked and can be reset; the setup line below shows the same values as
/// text and can be edited.
class ParamForm : public QWidget {
  Q_OBJECT
 public:
  explicit ParamForm(QWidget* parent = nullptr);
  explicit ParamForm(const std::vector<ParamSpec>& specs, QWidget* parent = nullptr);

  /// Shows another method. Values that `params` lacks take the declared default.
  void setMethod(const MethodInfo& method, const ParamSet& params = {});
  const MethodInfo& method() const { return method_; }

  const ParamSet& values() const { return values_; }
  void setValues(const ParamSet& params);
  /// The values as one line, "kivi:k_bits=2"; without a method id "k_bits=2".
  QString setupLine() const;

  /// What is wrong with the values, and reasons given from outside (a group size that does not fit the model). An issue
  /// without a known key is shown at the top.
  void setOutsideIssues(std::vector<ParamIssue> issues);
  std::vector<ParamIssue> issues() const;

 Q_SIGNALS:
  void valuesChanged();

 private:
  struct Row {
    QWidget* editor = nullptr;
    QLabel* label = nullptr;
    QLabel* issue = nullptr;
    QToolButton* reset = nullptr;
    bool advanced = false;
  };
  void build();
  Row makeRow(const ParamSpec& spec);
  void setValue(const std::string& key, const ParamValue& value);
  void showValues();
  void showMarks();
  void applyLine();
  ParamSet presetValues(int index) const;

  MethodInfo method_;
  ParamSet values_, preset_;
  std::vector<ParamIssue> outside_;
  std::map<std::string, Row> rows_;
  QWidget* content_ = nullptr;
  QWidget* advanced_ = nullptr;
  QComboBox* presets_ = nullptr;
  QToolButton* fold_ = nullptr;
  QLineEdit* line_ = nullptr;
  QLabel* lineIssue_ = nullptr;
  QLabel* general_ = nullptr;
  bool showing_ = false;
};

}  // namespace qs

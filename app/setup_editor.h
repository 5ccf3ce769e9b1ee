#pragma once

#include <QWidget>
#include <optional>
#include <vector>

#include "backend/evaluation/setup_bits.h"
#include "backend/types/method_info.h"
#include "backend/types/published_number.h"

class QComboBox;
class QFormLayout;
class QGroupBox;
class QLabel;
class QPushButton;
class QStackedWidget;
class QTableView;

namespace qs {

class ParamForm;
class PublishedModel;
class SolveRow;
class JobRunner;

enum class PlanSide { Kv, Weights };

/// The setup of one side of a plan: a method with its parameters, a second one behind a plus sign where methods allow
/// it, what the setup costs on the chosen model, and what papers report of it. Everything comes from the methods'
/// declarations.
class SetupEditor : public QWidget {
  Q_OBJECT
 public:
  /// @param jobs  runs the search of "solve for bits"; null leaves it out, with the published numbers
  SetupEditor(PlanSide side, JobRunner* jobs, QWidget* parent);
  ~SetupEditor() override;

  PlanSide side() const { return side_; }
  QString line() const;               ///< empty: full precision
  void setLine(const QString& line);  ///< a line that cannot be read leaves full precision
  bool differsByLayer() const;
  std::optional<Setup> setup() const;  ///< empty for full precision and for a line with issues
  QStringList issues() const;          ///< why the setup cannot be used; empty when it can

  /// Of the chosen model; without it bits are not shown and fits are not checked.
  void setShape(std::optional<BitsShape> shape);
  void setPublished(std::vector<PublishedNumber> numbers);
  void focusSolve();

 Q_SIGNALS:
  void changed();
  void perLayerRequested();  ///< the user wants to edit the setup layer by layer

 private:
  void chooseMethod();
  void chooseNext();
  void refresh();
  void showCost(const std::optional<Setup>& setup);
  void showPublished();
  const MethodInfo* info() const;  ///< null: full precision
  const MethodInfo* next() const;  ///< null: nothing behind the method
  std::optional<Setup> parse(const QString& line) const;
  void applySolution(const QString& key, const ParamValue& value);

  const PlanSide side_;
  std::vector<MethodInfo> methods_;
  std::optional<BitsShape> shape_;
  std::vector<PublishedNumber> published_;
  QString layers_;  ///< a line that differs from layer to layer; then no form shows it
  QStringList issues_;
  QComboBox *method_, *next_;
  QFormLayout* head_;
  ParamForm *form_, *next_form_;
  QGroupBox* next_box_;
  QWidget* layers_box_;
  QLabel *cost_, *layers_text_;
  SolveRow* solve_ = nullptr;
  QGroupBox* published_box_ = nullptr;
  PublishedModel* published_model_ = nullptr;
  QTableView* published_table_ = nullptr;
  bool setting_ = false;
};

}  // namespace qs

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QLabel>
#include <QLineEdit>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTest>
#include <QToolButton>

#include "widgets/param_form.h"

using namespace qs;

namespace {

MethodInfo method() {
  MethodInfo info;
  info.id = "demo";
  info.title = "Demo";
  info.summary = "A declaration with every type.";
  info.params = {
      {.key = "bits",
       .label = "Bits",
       .help = "Width of a code.",
       .fallback = 4,
       .domain = IntRange{2, 8},
       .unit = "bit"},
      {.key = "alpha", .label = "Alpha", .help = "How much moves.", .fallback = 0.5, .domain = RealRange{0.0, 1.0}},
      {.key = "symmetric", .label = "Symmetric", .help = "Zero is a level.", .fallback = false},
      {.key = "scheme",
       .label = "Scheme",
       .help = "Which axis.",
       .fallback = std::string("token"),
       .domain = Choices{{"token", "channel"}}},
      {.key = "note", .label = "Note", .help = "Free text.", .fallback = std::string(), .advanced = true}};
  info.presets = {{"Paper", {{"bits", 2}}, "table 3"}};
  return info;
}

}  // namespace

class ParamFormTest : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void typedBitsReachTheParameters() {
    ParamForm form({{.key = "bits", .label = "Bits", .help = "", .fallback = 4, .domain = IntRange{2, 8}}});
    auto* box = form.findChild<QSpinBox*>("bits");
    QVERIFY(box);
    box->selectAll();
    QTest::keyClicks(box, "3");
    QCOMPARE(std::get<int>(form.values().at("bits")), 3);
  }

  void everyTypeHasItsEditor() {
    ParamForm form;
    form.setMethod(method());
    QVERIFY(form.findChild<QSpinBox*>("bits"));
    QVERIFY(form.findChild<QDoubleSpinBox*>("alpha"));
    QVERIFY(form.findChild<QCheckBox*>("symmetric"));
    QVERIFY(form.findChild<QComboBox*>("scheme"));
    QVERIFY(form.findChild<QLineEdit*>("note"));
    QVERIFY(form.findChild<QSpinBox*>("bits")->toolTip().contains("2 to 8"));
    QCOMPARE(form.findChild<QSpinBox*>("bits")->suffix(), QString(" bit"));
    for (QWidget* child : form.findChildren<QWidget*>()) {
      const bool part_of_a_box =
          qobject_cast<QAbstractSpinBox*>(child->parentWidget()) || qobject_cast<QComboBox*>(child->parentWidget());
      if (child->focusPolicy() == Qt::NoFocus || part_of_a_box || child->inherits("QAbstractItemView")) continue;
      QVERIFY2(!child->accessibleName().isEmpty() || !child->property("text").toString().isEmpty(),
               qPrintable(child->objectName()));
    }
  }

  void setValuesDoesNotRoundOrEmitTwice() {
    ParamForm form;
    form.setMethod(method());
    QSignalSpy changed(&form, &ParamForm::valuesChanged);
    form.setValues({{"alpha", 0.123456789}});
    QCOMPARE(changed.count(), 1);
    QCOMPARE(std::get<double>(form.values().at("alpha")), 0.123456789);
  }

  void aPresetSetsAllAndWhatDiffersIsMarked() {
    ParamForm form;
    form.setMethod(method());
    form.show();
    auto* presets = form.findChild<QComboBox*>("preset");
    QVERIFY(presets);
    presets->setCurrentIndex(1);
    Q_EMIT presets->activated(1);
    QCOMPARE(std::get<int>(form.values().at("bits")), 2);
    auto* reset = form.findChild<QToolButton*>("bits_reset");
    QVERIFY(!reset->isVisibleTo(&form));
    form.findChild<QSpinBox*>("bits")->setValue(5);
    QVERIFY(reset->isVisibleTo(&form));
    QTest::mouseClick(reset, Qt::LeftButton);
    QCOMPARE(std::get<int>(form.values().at("bits")), 2);
  }

  void theSetupLineIsEditable() {
    ParamForm form;
    form.setMethod(method());
    auto* line = form.findChild<QLineEdit*>("setup_line");
    QCOMPARE(line->text(), QString("demo"));
    line->setText("demo:bits=3,scheme=channel");
    QTest::keyClick(line, Qt::Key_Return);
    QCOMPARE(std::get<int>(form.values().at("bits")), 3);
    QCOMPARE(form.findChild<QComboBox*>("scheme")->currentText(), QString("channel"));
  }

  void aWrongSetupLineSaysWhatIsValidAndChangesNothing() {
    ParamForm form;
    form.setMethod(method());
    const ParamSet before = form.values();
    auto* line = form.findChild<QLineEdit*>("setup_line");
    line->setText("demo:bits=99");
    QTest::keyClick(line, Qt::Key_Return);
    QVERIFY(form.findChild<QLabel*>("setup_line_issue")->text().contains("2 to 8"));
    QVERIFY(form.values() == before);
  }

  void outsideIssuesStandAtTheirParameter() {
    ParamForm form;
    form.setMethod(method());
    form.setOutsideIssues({{"bits", "3 bits do not fit; the nearest that fits is 4."}, {"", "The model has no keys."}});
    QVERIFY(form.findChild<QLabel*>("bits_issue")->text().contains("nearest"));
    QVERIFY(form.findChild<QLabel*>("general_issue")->text().contains("no keys"));
  }
};

QTEST_MAIN(ParamFormTest)
#include "tst_param_form.moc"

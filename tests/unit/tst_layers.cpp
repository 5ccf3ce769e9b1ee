#include <QDirIterator>
#include <QFile>
#include <QRegularExpression>
#include <QTest>

// Reads the #include lines of each folder, because a forbidden system header still compiles where ATen or HDF5 headers
// lie in /usr/include. The rules are those of CONTRIBUTING.md: an arrow only ever points down.
class TestLayers : public QObject {
  Q_OBJECT

  struct Rule {
    const char* folder;
    const char* forbidden;  // matched against what stands between the quotes or brackets
    const char* why;
  };

 private Q_SLOTS:
  void includesPointDown_data();
  void includesPointDown();
  void aForbiddenIncludeIsFound();

 private:
  static QStringList violations(const QString& path, const QByteArray& text, const Rule& rule);
};

namespace {
constexpr const char* kTorch = "^(torch|ATen|c10|caffe2)/";
constexpr const char* kHdf5 = "^(hdf5|H5)[^/]*\\.h$";
constexpr const char* kQt = "^Q[A-Z]|^Qt";
}  // namespace

void TestLayers::includesPointDown_data() {
  QTest::addColumn<QString>("folder");
  QTest::addColumn<QString>("forbidden");
  QTest::addColumn<QString>("why");
  const auto rule = [](const char* name, const char* folder, const QString& forbidden, const char* why) {
    QTest::newRow(name) << folder << forbidden << why;
  };
  rule("kernels know raw memory only", "kernels",
       QStringLiteral("%1|%2|%3|^(backend|analysis|sessions|widgets|app)/").arg(kTorch, kHdf5, kQt),
       "kernels take raw pointers and sizes");
  rule("types know the standard library only", "backend/types",
       QStringLiteral("%1|%2|%3|^(Eigen|nlohmann)/|^(kernels|analysis|sessions|widgets|app)/|^backend/(?!types/)")
           .arg(kTorch, kHdf5, kQt),
       "backend/types is the standard library only");
  rule("backend knows no Qt", "backend", QStringLiteral("%1|^(analysis|sessions|widgets|app)/").arg(kQt),
       "the backend serves programs without an event loop");
  rule("analysis is pure", "analysis",
       QStringLiteral("%1|%2|%3|^(sessions|widgets|app|kernels)/|^backend/(?!types/|metrics\\.h)")
           .arg(kTorch, kHdf5, kQt),
       "analysis goes from plain tensors to plain structs");
  rule("sessions know no tensors", "sessions",
       QStringLiteral("%1|%2|^(widgets|app|kernels)/|^backend/(?!types/)|^Q(Widget|Painter|Gui)").arg(kTorch, kHdf5),
       "a session is a document");
  rule("widgets compute nothing", "widgets",
       QStringLiteral("%1|%2|^(app|kernels)/|^backend/(?!types/)").arg(kTorch, kHdf5), "widgets show structs");
  rule("app holds no tensors", "app", QStringLiteral("%1|%2").arg(kTorch, kHdf5), "the app only wires");
}

QStringList TestLayers::violations(const QString& path, const QByteArray& text, const Rule& rule) {
  static const QRegularExpression include(QStringLiteral("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"]"));
  const QRegularExpression forbidden(QString::fromUtf8(rule.forbidden));
  QStringList found;
  int line = 0;
  for (const QByteArray& row : text.split('\n')) {
    ++line;
    const QRegularExpressionMatch match = include.match(QString::fromUtf8(row));
    if (match.hasMatch() && forbidden.match(match.captured(1)).hasMatch()) {
      found << QStringLiteral("%1:%2 includes %3: %4")
                   .arg(path)
                   .arg(line)
                   .arg(match.captured(1), QString::fromUtf8(rule.why));
    }
  }
  return found;
}

void TestLayers::includesPointDown() {
  QFETCH(QString, folder);
  QFETCH(QString, forbidden);
  QFETCH(QString, why);
  const QByteArray pattern = forbidden.toUtf8(), reason = why.toUtf8();
  const Rule rule{nullptr, pattern.constData(), reason.constData()};
  const QString root = QStringLiteral(QS_SOURCE "/");
  QStringList found;
  int files = 0;
  QDirIterator walk(root + folder, {QStringLiteral("*.h"), QStringLiteral("*.cpp"), QStringLiteral("*.cu")},
                    QDir::Files, QDirIterator::Subdirectories);
  while (walk.hasNext()) {
    QFile file(walk.next());
    QVERIFY2(file.open(QIODevice::ReadOnly), qPrintable(file.fileName()));
    found += violations(file.fileName().mid(root.size()), file.readAll(), rule);
    ++files;
  }
  QVERIFY2(files > 0, qPrintable(folder + QStringLiteral(" holds no source file")));
  QVERIFY2(found.isEmpty(), qPrintable(found.join(QLatin1Char('\n'))));
}

void TestLayers::aForbiddenIncludeIsFound() {
  const Rule rule{nullptr, kTorch, "test"};
  QCOMPARE(violations(QStringLiteral("x.h"), "#pragma once\n# include <ATen/ATen.h>\n", rule),
           QStringList{QStringLiteral("x.h:2 includes ATen/ATen.h: test")});
  QVERIFY(violations(QStringLiteral("x.h"), "// #include <ATen/ATen.h>\n#include \"backend/types/job.h\"\n", rule)
              .isEmpty());
}

QTEST_GUILESS_MAIN(TestLayers)
#include "tst_layers.moc"

// What a config.json of each family may ask for that is not computed is refused by name.
#include <QTemporaryDir>
#include <QtTest>
#include <nlohmann/json.hpp>

#include "backend/model/model.h"
#include "backend/types/error.h"
#include "tests/support/model_files.h"

using nlohmann::json;
using qs::ErrorCode;

namespace {

std::filesystem::path family(const QString& name) {
  return std::filesystem::path(QS_TEST_DATA "/families") / name.toStdString();
}

}  // namespace

class TestFamilyConfigs : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void settingsThatAreNotComputedAreRefused_data() {
    QTest::addColumn<QString>("name");
    QTest::addColumn<QString>("change");
    QTest::addColumn<int>("code");
    QTest::addColumn<QString>("says");
    const auto row = [](const char* name, const char* change, ErrorCode code, const char* says) {
      QTest::addRow("%s: %s", name, change)
          << QString(name) << QString(change) << static_cast<int>(code) << QString(says);
    };
    const ErrorCode no = ErrorCode::Unsupported, bad = ErrorCode::BadFormat;
    row("llama", R"({"rope_scaling":{"rope_type":"ntk","factor":2}})", no, "rope_scaling = {");
    row("llama", R"({"rope_scaling":{"rope_type":"linear","factor":2,"alpha":3}})", no, "rope_scaling.alpha = 3");
    row("llama", R"({"rope_scaling":{"rope_type":"linear"}})", bad, "rope_scaling.factor is missing");
    row("llama", R"({"rope_scaling":{"rope_type":"linear","factor":-1}})", bad, "rope_scaling.factor is -1");
    row("llama", R"({"rope_scaling":"linear"})", no, "rope_scaling = \"linear\"");
    row("llama", R"({"hidden_act":"quick_gelu"})", no, "hidden_act = \"quick_gelu\"");
    row("llama", R"({"attention_multiplier":0.5})", no, "attention_multiplier = 0.5");
    row("llama", R"({"num_local_experts":4})", no, "num_local_experts = 4");
    row("llama", R"({"layer_types":["full_attention","chunked_attention"]})", no, "layer_types");
    row("llama", R"({"sliding_window":16})", no, "sliding_window = 16");
    row("llama3", R"({"rope_scaling":{"rope_type":"llama3","factor":8}})", bad, "low_freq_factor is missing");
    row("llama3", R"({"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1}})", bad,
        "high_freq_factor must be above");
    row("llama_yarn", R"({"rope_parameters":{"rope_type":"yarn","factor":2,"beta_fast":"x"}})", bad,
        "rope_parameters.beta_fast is \"x\"");
    row("llama_dynamic", R"({"rope_scaling":{"type":"dynamic"}})", bad, "rope_scaling.factor is missing");
    row("mistral", R"({"sliding_window":0})", bad, "sliding_window is 0");
    row("mistral", R"({"attention_bias":true})", no, "attention_bias = true");
    row("mixtral", R"({"num_experts_per_tok":5})", bad, "num_experts_per_tok 5 is more than num_local_experts 4");
    row("mixtral", R"({"num_local_experts":null})", bad, "num_local_experts is missing");
    row("mixtral", R"({"n_routed_experts":8})", no, "n_routed_experts = 8");
    row("qwen2", R"({"layer_types":["full_attention"]})", bad, "layer_types");
    row("qwen2", R"({"layer_types":["full_attention","linear_attention"]})", no, "linear_attention");
    row("qwen2", R"({"rope_scaling":{"type":"mrope","mrope_section":[1,1,2]}})", no, "mrope");
    row("qwen3", R"({"num_experts":8})", no, "num_experts = 8");
    row("gemma", R"({"attn_logit_softcapping":20.0})", no, "attn_logit_softcapping = 20");
    row("gemma2", R"({"attn_logit_softcapping":-1})", bad, "attn_logit_softcapping is -1");
    row("gemma2", R"({"use_bidirectional_attention":true})", no, "use_bidirectional_attention = true");
    row("gemma3", R"({"query_pre_attn_scalar":0})", bad, "query_pre_attn_scalar is 0");
    row("gemma3",
        R"({"rope_parameters":{"full_attention":{"rope_type":"proportional","rope_theta":1e6},)"
        R"("sliding_attention":{"rope_type":"default","rope_theta":1e4}}})",
        no, "rope_parameters");
    row("phi3", R"({"partial_rotary_factor":0.4})", bad, "partial_rotary_factor");
    row("phi3_longrope", R"({"rope_scaling":{"type":"longrope","short_factor":[1,1],"long_factor":[1,1,1,1]}})", bad,
        "short_factor should be a list of 4");
    row("phi3_longrope",
        R"({"rope_scaling":{"type":"longrope","short_factor":[1,1,1,1],"long_factor":[1,1,1,1],)"
        R"("short_mscale":1.1}})",
        no, "short_mscale = 1.1");
    row("opt", R"({"layer_norm_elementwise_affine":false})", no, "layer_norm_elementwise_affine = false");
    row("opt", R"({"activation_function":"tanh"})", no, "activation_function = \"tanh\"");
    row("opt", R"({"do_layer_norm_before":"yes"})", bad, "do_layer_norm_before is \"yes\"");
    row("gpt2", R"({"scale_attn_by_inverse_layer_idx":true})", no, "scale_attn_by_inverse_layer_idx = true");
    row("gpt2", R"({"add_cross_attention":true})", no, "add_cross_attention = true");
    row("gpt2", R"({"n_head":5})", bad, "n_head 5 does not divide n_embd 32");
    row("gpt_neox", R"({"rotary_pct":2.0})", bad, "partial_rotary_factor");
    row("gpt_neox", R"({"num_key_value_heads":2})", no, "num_key_value_heads = 2");
    row("falcon_7b", R"({"alibi":true})", no, "alibi = true");
    row("falcon_7b", R"({"num_ln_in_parallel_attn":2})", no, "num_ln_in_parallel_attn = 2");
    row("falcon_40b", R"({"num_kv_heads":3})", bad, "does not divide");
  }
  void settingsThatAreNotComputedAreRefused() {
    QFETCH(QString, name);
    QFETCH(QString, change);
    QFETCH(int, code);
    QFETCH(QString, says);
    json config = json::parse(qs::test::read_all(family(name) / "config.json"));
    const json changes = json::parse(change.toStdString());
    for (const auto& [key, value] : changes.items()) config[key] = value;
    expect(config, name, static_cast<ErrorCode>(code), says);
  }

  void everyConfigIsCheckedForDamagedNumbers_data() {
    QTest::addColumn<QString>("name");
    for (const auto& entry : std::filesystem::directory_iterator(QS_TEST_DATA "/families"))
      if (entry.is_directory()) QTest::newRow(entry.path().filename().c_str()) << entry.path().filename().c_str();
  }
  void everyConfigIsCheckedForDamagedNumbers() {
    QFETCH(QString, name);
    const json whole = json::parse(qs::test::read_all(family(name) / "config.json"));
    qs::test::write_all(folder_ / "model.safetensors", qs::test::read_all(family(name) / "model.safetensors"));
    for (const auto& [key, value] : whole.items()) {
      if (!value.is_number() && !value.is_structured()) continue;
      for (const json& damaged : {json(-7), json("text"), json(1e300), json::array({nullptr}), json::object()}) {
        json config = whole;
        config[key] = damaged;
        qs::test::write_all(folder_ / "config.json", config.dump());
        try {
          qs::inspect_model(folder_);  // a setting that nothing depends on may be anything
        } catch (const qs::Error& error) {
          QVERIFY(error.code() == ErrorCode::BadFormat || error.code() == ErrorCode::Unsupported ||
                  error.code() == ErrorCode::NotFound);
        }
      }
    }
  }

  void architecturesThatAreNotComputedAreRefusedWithTheReason_data() {
    QTest::addColumn<QString>("architecture");
    QTest::addColumn<QString>("says");
    QTest::newRow("bloom") << "BloomForCausalLM"
                           << "ALiBi";
    QTest::newRow("gpt-j") << "GPTJForCausalLM"
                           << "neighbouring channels";
    QTest::newRow("unknown") << "NovelForCausalLM"
                             << "'NovelForCausalLM' (model_type 'llama'), which is not known";
  }
  void architecturesThatAreNotComputedAreRefusedWithTheReason() {
    QFETCH(QString, architecture);
    QFETCH(QString, says);
    json config = json::parse(qs::test::read_all(family("llama") / "config.json"));
    config["architectures"] = {architecture.toStdString()};
    expect(config, "llama", ErrorCode::Unsupported, says);
    expect(config, "llama", ErrorCode::Unsupported, "FalconForCausalLM");
  }

  void aFileWithoutArchitecturesIsKnownByItsType() {
    json config = json::parse(qs::test::read_all(family("gpt2") / "config.json"));
    config.erase("architectures");
    write(config, "gpt2");
    QCOMPARE(qs::inspect_model(folder_).architecture, std::string("GPT2LMHeadModel"));
    config["model_type"] = "novel";
    expect(config, "gpt2", ErrorCode::BadFormat, "model_type 'novel' is not known either");
  }

  void weightsThatBelongToOtherSettingsAreNamed() {
    json config = json::parse(qs::test::read_all(family("falcon_7b") / "config.json"));
    config["multi_query"] = false;
    expect(config, "falcon_7b", ErrorCode::BadFormat, "query_key_value");
    config = json::parse(qs::test::read_all(family("opt_350m") / "config.json"));
    config["word_embed_proj_dim"] = 32;
    expect(config, "opt_350m", ErrorCode::BadFormat, "embed_tokens");
    config = json::parse(qs::test::read_all(family("llama") / "config.json"));
    config["attention_bias"] = true;
    expect(config, "llama", ErrorCode::NotFound, "q_proj.bias");
  }

 private:
  void write(const json& config, const QString& name) {
    std::filesystem::create_directories(folder_);
    qs::test::write_all(folder_ / "config.json", config.dump());
    qs::test::write_all(folder_ / "model.safetensors", qs::test::read_all(family(name) / "model.safetensors"));
  }
  void expect(const json& config, const QString& name, ErrorCode code, const QString& says) {
    write(config, name);
    try {
      qs::inspect_model(folder_);
      QFAIL("was accepted");
    } catch (const qs::Error& error) {
      QVERIFY2(QString(error.what()).contains(says), error.what());
      QCOMPARE(static_cast<int>(error.code()), static_cast<int>(code));
    }
  }

  QTemporaryDir temporary_;
  std::filesystem::path folder_ = temporary_.path().toStdString();
};

QTEST_GUILESS_MAIN(TestFamilyConfigs)
#include "tst_family_configs.moc"

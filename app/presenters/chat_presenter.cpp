#include "app/presenters/chat_presenter.h"

#include <QPointer>
#include <atomic>
#include <chrono>
#include <cmath>
#include <optional>
#include <thread>

#include "backend/method.h"
#include "backend/model/decoder.h"
#include "backend/model/generate.h"
#include "backend/tokenizer/chat_template.h"
#include "backend/types/error.h"

namespace qs {

namespace {

using Clock = std::chrono::steady_clock;

QString setupText(const VariantEntry& entry) {
  QStringList parts;
  if (!entry.weights.isEmpty()) parts << entry.weights;
  if (!entry.kv.isEmpty()) parts << entry.kv;
  return parts.isEmpty() ? ChatView::tr("full precision") : parts.join(QStringLiteral(" + "));
}

QString executionText(const Variant& variant) {
  QStringList parts;
  if (variant.kv()) parts << ChatView::tr("packed KV");
  if (variant.weight_setup()) {
    const bool packed =
        !variant.weights().blocks.empty() && variant.weights().blocks.front().linear(LinearKind::Q).packed();
    parts << (packed ? ChatView::tr("packed weights") : ChatView::tr("simulated weights"));
  }
  return parts.isEmpty() ? ChatView::tr("full precision") : parts.join(QStringLiteral(", "));
}

RenderedPrompt renderedPrompt(const ChatRequest& request, const Tokenizer& tokenizer) {
  return render_prompt(tokenizer, choose_chat_format(tokenizer.chat_template(), request.chatTemplate),
                       request.system.toStdString(), request.prompt.toStdString());
}

/// The message in the command that repeats it. @param text  as it was sent; edited prefixes exist in the window only
QString promptOption(const ChatRequest& request, ChatKind kind, const QString& text) {
  const auto quoted = [](QString words) {
    return QStringLiteral("'%1'").arg(words.replace(u'\'', QStringLiteral("'\\''")));
  };
  if (kind == ChatKind::Raw || kind == ChatKind::Custom) return QStringLiteral("--prompt ") + quoted(text);
  const QString system = request.system.isEmpty() ? QString() : QStringLiteral(" --system ") + quoted(request.system);
  return QStringLiteral("--chat ") + quoted(request.prompt) + system + QStringLiteral(" --template ") +
         QString::fromUtf8(chat_kind_id(kind));
}

bool sameVocabulary(const Model& a, const Model& b, const std::string& text) {
  return a.info().vocab_size == b.info().vocab_size &&
         encode_with_bos(a.tokenizer(), text) == encode_with_bos(b.tokenizer(), text);
}

}  // namespace

struct ChatPresenter::Run {
  ChatRequest request;
  std::string text;  // as the reference's template writes it
  ChatKind kind = ChatKind::Raw;
  std::vector<std::shared_ptr<TokenRing>> rings;
  std::vector<std::stop_source> stops;
  std::vector<std::shared_ptr<const Variant>> variants;
  std::vector<std::vector<std::int64_t>> prompts;  // ids by column
  std::vector<std::optional<GenerationResult>> results;
  std::atomic<std::int64_t> tokens{0};
};

ChatPresenter::ChatPresenter(Workbench& workbench, ChatView& view) : workbench_(workbench), view_(view) {
  connect(&view_, &ChatView::sendRequested, this, &ChatPresenter::send);
  connect(&view_, &ChatView::stopRequested, this, &ChatPresenter::stop);
  connect(&view_, &ChatView::determinismRequested, this, &ChatPresenter::checkDeterminism);
  connect(&view_, &ChatView::promptPreviewRequested, this, &ChatPresenter::previewPrompt);
  connect(&workbench_, &Workbench::variantsChanged, this, &ChatPresenter::showVariants);
  connect(&workbench_, &Workbench::modelsChanged, this, &ChatPresenter::showVariants);
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] {
    learned_.clear();
    detected_for_.clear();
    stop(-1);
    showVariants();
  });
  connect(&view_, &ChatView::columnsChanged, this, &ChatPresenter::detectTemplate);
  showVariants();
}

ChatPresenter::~ChatPresenter() {
  if (run_) {
    for (std::stop_source& source : run_->stops) source.request_stop();
    for (const auto& ring : run_->rings) ring->close();
  }
  if (job_) workbench_.jobs().cancel(job_);
}

void ChatPresenter::showVariants() {
  QList<ChatVariant> variants;
  for (const VariantEntry& entry : workbench_.session().variants) {
    ChatVariant variant{entry.id, entry.name.isEmpty() ? setupText(entry) : entry.name, setupText(entry), 16.0, 16.0,
                        {}};
    const auto known = learned_.constFind(entry.id + u'\n' + variant.setup);
    if (known != learned_.constEnd()) {
      variant.kvBits = known->kvBits;
      variant.weightBits = known->weightBits;
      variant.execution = known->execution;
    }
    variants << variant;
  }
  view_.setVariants(variants);
  if (variants.isEmpty()) {
    view_.setState(ViewState::Empty, tr("Open a model to chat with it."), QStringLiteral("file.open"),
                   tr("Open model…"));
    return;
  }
  if (view_.state() == ViewState::Empty) view_.setState(ViewState::Ready);
  chooseColumns();
  detectTemplate();
}

void ChatPresenter::detectTemplate() {
  const QStringList columns = view_.columns();
  const auto entry = columns.isEmpty() ? std::nullopt : workbench_.variantEntry(columns.first());
  const auto model = entry ? workbench_.modelEntry(entry->modelId) : std::nullopt;
  if (!model || detected_for_ == entry->modelId) return;
  detected_for_ = entry->modelId;
  struct Found {
    bool hasTemplate = false;
    std::optional<ChatKind> kind;
  };
  workbench_.jobs().compute(
      tr("Chat template"), view_.viewId(), JobLane::Interactive,
      [path = workbench_.resolvePath(model->path).toStdString()](const JobContext&) {
        const std::string text = read_chat_template(path);
        const auto format = recognise_chat_template(text);
        return Found{!text.empty(), format ? std::optional(format->kind) : std::nullopt};
      },
      this,
      [this, id = detected_for_](const Found& found) {
        if (id == detected_for_) view_.setDetectedTemplate(found.hasTemplate, found.kind);
      },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) view_.setDetectedTemplate(false, std::nullopt);
      });
}

void ChatPresenter::chooseColumns() {
  const auto all = workbench_.session().variants;
  QStringList kept;
  for (const QString& id : view_.columns()) {
    if (workbench_.variantEntry(id)) kept << id;
  }
  if (!kept.isEmpty()) {
    if (kept != view_.columns()) view_.setColumns(kept);
    return;
  }
  const ChatEntry& chat = workbench_.session().chat;
  for (const QString& id : chat.variantIds) {
    if (workbench_.variantEntry(id) && kept.size() < ChatView::kMaxColumns) kept << id;
  }
  if (kept.isEmpty()) {
    const auto reference = std::find_if(all.begin(), all.end(),
                                        [](const VariantEntry& v) { return v.weights.isEmpty() && v.kv.isEmpty(); });
    const QString model = reference == all.end() ? all.first().modelId : reference->modelId;
    kept << (reference == all.end() ? all.first().id : reference->id);
    for (const VariantEntry& entry : all) {
      if (entry.modelId == model && !kept.contains(entry.id) && kept.size() < 3) kept << entry.id;
    }
  }
  view_.setColumns(kept);
  if (view_.request().prompt.isEmpty()) {
    view_.setPrompt(chat.prompt, chat.system);
    SamplingOptions options;
    options.temperature = chat.temperature;
    options.top_p = chat.topP;
    options.min_p = chat.minP;
    options.top_k = chat.topK;
    options.repetition_penalty = chat.repetitionPenalty;
    options.max_tokens = chat.maxTokens;
    options.seed = chat.seed;
    view_.setSampling(options);
  }
}

void ChatPresenter::learn(const QString& variantId, double kvBits, double weightBits, const QString& execution) {
  const auto entry = workbench_.variantEntry(variantId);
  if (!entry) return;
  learned_[variantId + u'\n' + setupText(*entry)] = {variantId, {}, {}, kvBits, weightBits, execution};
  showVariants();
}

void ChatPresenter::stop(int column) {
  if (!run_) return;
  for (std::size_t i = 0; i < run_->stops.size(); ++i) {
    if (column < 0 || static_cast<std::size_t>(column) == i) run_->stops[i].request_stop();
  }
  if (column < 0 && job_) workbench_.jobs().cancel(job_);
}

void ChatPresenter::send(const ChatRequest& request) {
  if (job_ || request.variantIds.isEmpty()) return;
  const auto run = std::make_shared<Run>();
  const auto count = static_cast<std::size_t>(request.variantIds.size());
  run->request = request;
  view_.beginRun(request.system.isEmpty() ? request.prompt : request.system + QStringLiteral("\n\n") + request.prompt,
                 0, request.lockStep, request.together);
  for (int i = 0; i < view_.columnCount(); ++i) run->rings.push_back(view_.column(i)->ring());
  run->stops.resize(count);
  run->variants.resize(count);
  run->prompts.resize(count);
  run->results.resize(count);
  run_ = run;

  const QPointer<ChatPresenter> self(this);
  JobRunner* runner = &workbench_.jobs();
  // Answers of an older message are dropped: the presenter shows `run` only while it is the current one.
  const auto tell = [runner, self, run](auto act) {
    QMetaObject::invokeMethod(runner, [self, run, act] {
      if (self && self->run_ == run) act(*self);
    });
  };
  const auto finish = [tell](std::size_t i, ChatColumn::State state, const ChatStats& stats, const QString& message,
                             const QString& detail) {
    tell([=](ChatPresenter& p) { p.view_.finishColumn(static_cast<int>(i), state, stats, message, detail); });
  };
  // Runs `work` for one column and shows its failure there; the others go on.
  const auto guarded = [finish](std::size_t i, const std::function<void()>& work) {
    try {
      work();
      return true;
    } catch (const Cancelled&) {
      finish(i, ChatColumn::State::Cancelled, {}, {}, {});
    } catch (const Error& error) {
      finish(i, ChatColumn::State::Failed, {}, QString::fromUtf8(error.what()), QString::fromStdString(error.detail()));
    } catch (const std::exception& error) {
      finish(i, ChatColumn::State::Failed, {}, tr("Something unexpected went wrong."), QString::fromUtf8(error.what()));
    }
    return false;
  };
  const auto statsOf = [run](std::size_t i) {
    const GenerationResult& result = *run->results[i];
    ChatStats stats;
    stats.secondsToFirst = result.seconds_prefill;
    stats.tokensPerSecond = result.tokens_per_second();
    stats.kvBytes = result.cache.bytes();
    stats.kvBytesIfF16 = result.cache.bytes_if_f16;
    stats.context = static_cast<int>(result.prompt_ids.size() + result.ids.size());
    stats.maxContext = static_cast<int>(run->variants[i]->model().spec().max_context);
    return stats;
  };

  const auto generateColumn = [run, guarded, finish, statsOf, tell](std::size_t i) {
    guarded(i, [&] {
      tell([i](ChatPresenter& p) { p.view_.startColumn(static_cast<int>(i)); });
      const Clock::time_point start = Clock::now();
      run->results[i] = generate(
          *run->variants[i], run->prompts[i], run->request.sampling,
          [&](const TokenStep& step) {
            run->rings[i]->push({step, {}, false, std::chrono::duration<double>(Clock::now() - start).count()});
            run->tokens.fetch_add(1, std::memory_order_relaxed);
          },
          JobContext(run->stops[i].get_token(), {}));
      const double kvBits = run->results[i]->cache.bytes_if_f16 && run->variants[i]->kv()
                                ? run->results[i]->cache.effective_bits()
                                : 16.0;
      const double weightBits = run->variants[i]->weight_setup() ? run->variants[i]->weight_bits() : 16.0;
      const QString id = run->request.variantIds[static_cast<int>(i)], execution = executionText(*run->variants[i]);
      const CacheStats cache = run->results[i]->cache;
      tell([=](ChatPresenter& p) {
        p.learn(id, kvBits, weightBits, execution);
        if (const auto entry = p.workbench_.variantEntry(id))
          Q_EMIT p.workbench_.cacheMeasured(id, entry->kv, cache.bytes(), cache.bytes_if_f16, cache.tokens);
      });
      finish(i, ChatColumn::State::Done, statsOf(i), {}, {});
    });
  };
  const auto replayColumn = [run, guarded, finish, tell](std::size_t i, bool showTokens) {
    guarded(i, [&] {
      if (!run->results[0] || run->results[0]->ids.empty()) throw Cancelled{};
      if (showTokens) tell([i](ChatPresenter& p) { p.view_.startColumn(static_cast<int>(i)); });
      const Model &reference = run->variants[0]->model(), &model = run->variants[i]->model();
      if (!sameVocabulary(reference, model, run->text)) {
        throw Error(ErrorCode::InvalidArgument, "'" + model.info().name + "' cuts the prompt into other tokens than '" +
                                                    reference.info().name +
                                                    "'; a lock-step replay needs one tokenizer.");
      }
      std::vector<std::int64_t> ids = run->prompts[0];
      ids.insert(ids.end(), run->results[0]->ids.begin(), run->results[0]->ids.end());
      StreamingDecoder decoder(model.tokenizer());
      for (const std::int64_t id : run->prompts[0]) decoder.push(id);
      const Clock::time_point start = Clock::now();
      replay(
          *run->variants[0], *run->variants[i], ids, static_cast<std::int64_t>(run->prompts[0].size()),
          [&](const ReplayStep& step) {
            const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
            if (showTokens) {
              TokenStep token;
              token.index = step.index;
              token.id = step.id;
              token.text = decoder.push(step.id);
              token.top = step.variant_top;
              for (const TokenCandidate& candidate : step.variant_top) {
                if (candidate.id == step.id) token.logprob = std::log(std::max(candidate.probability, 1e-30F));
              }
              run->rings[i]->push({token, {}, false, seconds});
            }
            run->rings[i]->push({{}, step, true, seconds});
            run->tokens.fetch_add(1, std::memory_order_relaxed);
          },
          JobContext(run->stops[i].get_token(), {}));
      if (showTokens) finish(i, ChatColumn::State::Done, {}, {}, {});
    });
  };

  const auto work = [run, guarded, generateColumn, replayColumn, tell, count,
                     &workbench = workbench_](const JobContext& job) {
    std::vector<bool> ready(count, false);
    for (std::size_t i = 0; i < count; ++i) {
      ready[i] = guarded(i, [&] {
        job.checkpoint(static_cast<std::int64_t>(i), static_cast<std::int64_t>(count * 10), "Prepare variants");
        run->variants[i] = workbench.buildVariant(run->request.variantIds[static_cast<int>(i)],
                                                  JobContext(run->stops[i].get_token(), {}));
        const Tokenizer& tokenizer = run->variants[i]->model().tokenizer();
        RenderedPrompt prompt = renderedPrompt(run->request, tokenizer);
        run->prompts[i] = std::move(prompt.ids);
        if (i > 0) return;
        run->text = std::move(prompt.text);
        run->kind = choose_chat_format(tokenizer.chat_template(), run->request.chatTemplate).kind;
      });
    }
    tell([n = static_cast<int>(run->prompts[0].size())](ChatPresenter& p) { p.view_.setPromptTokens(n); });
    bool cancelled = false;
    const std::int64_t expected = static_cast<std::int64_t>(count) * run->request.sampling.max_tokens;
    // Waits for threads while reporting progress; a stop of the job stops every column.
    const auto runAll = [&](const std::vector<std::size_t>& columns, const std::function<void(std::size_t)>& each) {
      std::atomic<int> left{static_cast<int>(columns.size())};
      std::vector<std::jthread> threads;
      for (const std::size_t i : columns) {
        threads.emplace_back([&, i] {
          each(i);
          left.fetch_sub(1);
        });
      }
      while (left.load() > 0) {
        try {
          job.checkpoint(std::min(run->tokens.load(), expected), expected * 2, "Generate");
        } catch (const Cancelled&) {
          cancelled = true;
          for (std::stop_source& source : run->stops) source.request_stop();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    };
    std::vector<std::size_t> columns;
    for (std::size_t i = 0; i < count; ++i) {
      if (ready[i] && (i == 0 || !run->request.lockStep)) columns.push_back(i);
    }
    if (run->request.together) {
      runAll(columns, generateColumn);
    } else {
      for (const std::size_t i : columns) {
        if (!cancelled) runAll({i}, generateColumn);
      }
    }
    if (run->request.lockStep || run->request.replayAfter) {
      for (std::size_t i = 1; i < count; ++i) {
        if (ready[i] && !cancelled && !run->stops[i].stop_requested()) {
          runAll({i}, [&](std::size_t c) { replayColumn(c, run->request.lockStep); });
        }
      }
    }
    if (cancelled) throw Cancelled{};
  };
  job_ = runner->start(tr("Chat"), view_.viewId(), JobLane::Compute, work, this, [this, run](const JobStatus& status) {
    job_ = 0;
    if (run_ != run) return;
    if (status.state == JobState::Failed) {
      for (int i = 0; i < view_.columnCount(); ++i) {
        if (view_.column(i)->state() == ChatColumn::State::Running ||
            view_.column(i)->state() == ChatColumn::State::Waiting) {
          view_.finishColumn(i, ChatColumn::State::Failed, {}, status.message, status.detail);
        }
      }
    }
    Provenance p;
    p.session = workbench_.session().title;
    p.variant = view_.column(0)->variant().name;
    p.data = tr("prompt “%1”, seed %2").arg(run->request.prompt.left(60)).arg(run->request.sampling.seed);
    p.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
    if (const auto entry = workbench_.variantEntry(run->request.variantIds.last())) {
      const auto model = workbench_.modelEntry(entry->modelId);
      p.command = QStringLiteral("quantoscope-cli generate %1%2%3 %4 --max-tokens %5 --seed %6 --temperature %7")
                      .arg(model ? workbench_.resolvePath(model->path) : entry->modelId,
                           entry->kv.isEmpty() ? QString() : QStringLiteral(" --kv '%1'").arg(entry->kv),
                           entry->weights.isEmpty() ? QString() : QStringLiteral(" --weights '%1'").arg(entry->weights),
                           promptOption(run->request, run->kind, QString::fromStdString(run->text)))
                      .arg(run->request.sampling.max_tokens)
                      .arg(run->request.sampling.seed)
                      .arg(run->request.sampling.temperature);
    }
    view_.setProvenance(p);
    view_.endRun();
  });
}

void ChatPresenter::previewPrompt(const ChatRequest& request) {
  if (request.variantIds.isEmpty()) return;
  const auto entry = workbench_.variantEntry(request.variantIds.first());
  if (!entry) return;
  workbench_.jobs().compute(
      tr("Tokens of the prompt"), view_.viewId(), JobLane::Interactive,
      [&workbench = workbench_, model_id = entry->modelId, request](const JobContext& job) {
        const auto model = workbench.loadModel(model_id, job);
        const Tokenizer& tokenizer = model->tokenizer();
        PromptPreview preview;
        preview.tokenizer = QStringLiteral("%1 · %2").arg(QString::fromStdString(tokenizer.kind()),
                                                          QString::fromStdString(model->info().name));
        const RenderedPrompt prompt = renderedPrompt(request, tokenizer);
        preview.text = QString::fromStdString(prompt.text);
        for (const std::int64_t id : prompt.ids) {
          preview.ids.append(id);
          preview.texts.append(QString::fromStdString(tokenizer.token_text(id)));
        }
        return preview;
      },
      this, [this](const PromptPreview& preview) { view_.showPromptPreview(preview); },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) Q_EMIT view_.readoutChanged(status.message);
      });
}

void ChatPresenter::checkDeterminism() {
  const auto run = run_;
  if (!run || job_) return;
  job_ = workbench_.jobs().compute(
      tr("Determinism check"), view_.viewId(), JobLane::Compute,
      [run](const JobContext& job) {
        std::vector<std::optional<bool>> same(run->results.size());
        for (std::size_t i = 0; i < run->results.size(); ++i) {
          if (!run->results[i]) continue;
          const double share = 1.0 / static_cast<double>(run->results.size());
          const GenerationResult again =
              generate(*run->variants[i], run->prompts[i], run->request.sampling, {},
                       job.part(share * static_cast<double>(i), share * static_cast<double>(i + 1)));
          same[i] = again.ids == run->results[i]->ids;
        }
        return same;
      },
      this,
      [this, run](const std::vector<std::optional<bool>>& same) {
        job_ = 0;
        if (run_ != run) return;
        for (int i = 0; i < view_.columnCount() && i < static_cast<int>(same.size()); ++i) {
          view_.column(i)->setDeterminism(same[static_cast<std::size_t>(i)]);
        }
      },
      [this](const JobStatus& status) {
        job_ = 0;
        if (status.state == JobState::Failed) Q_EMIT view_.readoutChanged(status.message);
      });
}

}  // namespace qs

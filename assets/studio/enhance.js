// The enhancer under the prompt: a suggestion streams in beside the idea, with what is new marked; use it, undo, again.
(() => {
  const { t, h, icon, button, say, ask } = studio;
  const RELATED = 0.5; // share of words that a changed prompt has in common with the suggestion it came from
  const MODES = ["off", "suggest", "automatic"];

  const area = () => document.querySelector("#prompt textarea");
  const prompt = () => area()?.value ?? "";
  /** Writes into the prompt as if it were typed, so that Gradio learns of it. */
  studio.setPrompt = (text) => {
    const field = area();
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  /** Text in pieces of words and what stands between them; every CJK character is a word. */
  const pieces = (text) => text.match(/[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[\p{L}\p{N}'’]+|\s+|./gsu) || [];

  /**
   * `next` as [text, isNew] runs. Words that stand in both in the same order are old, case left aside; long runs count
   * more than scattered words, so that a sentence taken over is seen as one. Both hold a few hundred words at most.
   */
  function difference(before, next) {
    const old = pieces(before).filter((word) => word.trim()).map((word) => word.toLowerCase());
    const all = pieces(next), places = all.map((_, i) => i).filter((i) => all[i].trim());
    const fresh = places.map((i) => all[i].toLowerCase());
    const table = () => Array.from({ length: old.length + 1 }, () => new Uint32Array(fresh.length + 1));
    const run = table(), best = table();
    for (let i = old.length - 1; i >= 0; i--)
      for (let j = fresh.length - 1; j >= 0; j--) {
        const n = (run[i][j] = old[i] === fresh[j] ? run[i + 1][j + 1] + 1 : 0);
        best[i][j] = Math.max(best[i + 1][j], best[i][j + 1], n ? n * n + best[i + n][j + n] : 0);
      }
    const kept = new Set();
    for (let i = 0, j = 0; i < old.length && j < fresh.length;) {
      const n = run[i][j];
      if (n && best[i][j] === n * n + best[i + n][j + n]) { for (let k = 0; k < n; k++) kept.add(places[j + k]); i += n; j += n; }
      else if (best[i][j] === best[i + 1][j]) i++;
      else j++;
    }
    const runs = [];
    all.forEach((piece, i) => {
      const isNew = piece.trim() ? !kept.has(i) : runs.at(-1)?.[1] ?? false;
      if (runs.length && runs.at(-1)[1] === isNew) runs.at(-1)[0] += piece;
      else runs.push([piece, isNew]);
    });
    return runs;
  }
  studio.difference = difference;

  studio.part("enhance", (root, { props, trigger, watch }) => {
    let value = taken(), writing = null, found = null, editing = null, choices = null, seed = 0, path = null;
    function taken() { return { mode: "off", model: null, file: null, look: true, idea: "", text: "", about: null, ...(props.value || {}) }; }

    const modes = h("div.modes", { role: "radiogroup", "aria-label": t("enhance") }, MODES.map((mode) =>
      h("button", { type: "button", role: "radio", "data-mode": mode, onclick: () => choose(mode) }, t(`enhance_${mode}`))));
    const go = button("wand", t("suggest"), () => (writing ? stop() : suggest(false)), { extra: "suggest" });
    const tune = button("tune", t("writer_settings"), () => { panel.hidden = !panel.hidden; if (!panel.hidden) learn(); draw(); }, { quiet: true, extra: "tune" });
    const panel = h("div.writerset", { hidden: true, role: "group", "aria-label": t("writer_settings") });
    const help = h("p.hint");
    const card = h("div.suggestion", { hidden: true, role: "region", "aria-label": t("suggestion"), "aria-live": "polite" });
    const taken_over = h("div.idea", { hidden: true });
    root.classList.add("enhance");
    root.append(h("div.enhancebar", {}, h("span.label", {}, t("enhance")), modes, h("span.spring"), tune, go), panel, help, card, taken_over);
    modes.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      choose(MODES[(MODES.indexOf(value.mode) + step + MODES.length) % MODES.length]);
      modes.querySelector("[aria-checked=true]").focus();
    });

    function put(changes) {
      value = { ...value, ...changes };
      props.value = value;
      trigger("change");
      draw();
    }
    function choose(mode) {
      stop();
      close();
      put({ mode });
    }
    function close() { found = null; editing = null; card.hidden = true; card.replaceChildren(); }
    function stop() { writing?.abort(); writing = null; draw(); }

    // ---- asking

    async function suggest(anew) {
      const idea = value.idea || prompt();
      const image = studio.firstPicture?.() ?? null;
      if (!idea.trim() && !image) { say(t("idea_empty"), { bad: true }); area()?.focus(); return; }
      seed = anew ? seed + 1 : 0;
      const mine = (writing = new AbortController());
      close();
      card.hidden = false;
      const text = h("p.written.sofar", {}, t("suggesting"));
      card.append(text);
      draw();
      try {
        const answer = await fetch("/studio/suggest", {
          method: "POST", signal: mine.signal, headers: { "content-type": "application/json" },
          body: JSON.stringify({ idea, model: value.model, look: value.look, seed, image, loras: studio.chosenLoras?.() ?? [] }),
        });
        if (!answer.ok) throw new Error((await answer.json()).error?.message || String(answer.status));
        for await (const line of lines(answer.body)) {
          if (mine !== writing) return;
          if (line.so_far !== undefined) text.textContent = line.so_far;
          if (line.error) { close(); say(line.error, { bad: true }); }
          if (line.done) { found = { ...line.done, idea }; }
        }
      } catch (error) {
        if (error.name !== "AbortError") { console.warn(error); say(t("no_answer"), { bad: true }); }
        if (mine === writing || !writing) close();
      }
      if (mine === writing) { writing = null; draw(); if (found) show(); }
    }

    async function* lines(body) {
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "";;) {
        const { value: more, done } = await reader.read();
        if (done) return;
        rest += more;
        const whole = rest.split("\n");
        rest = whole.pop();
        for (const line of whole) if (line) yield JSON.parse(line);
      }
    }

    // ---- the suggestion

    function show() {
      const text = editing ?? found.text;
      const written = editing === null
        ? h("p.written", { tabindex: "0" }, difference(found.idea, text).map(([words, isNew]) => (isNew ? h("ins", {}, words) : words)))
        : h("textarea.written", { rows: "9", "aria-label": t("suggestion_edit"), oninput: (event) => { editing = event.target.value; } });
      if (editing !== null) written.value = editing;
      const by = { [choices?.rules]: t("writer_rules"), [choices?.bundled]: t("writer_bundled") }[found.written_by] ?? found.written_by;
      card.hidden = false;
      card.replaceChildren(
        h("div.cardhead", {}, h("strong", {}, t("suggestion")), h("span.spring"), h("small", {}, t("suggestion_by", { writer: by, seconds: found.seconds.toFixed(1) })), writers()),
        written,
        found.speech.length ? h("div.said", {}, h("small", {}, t("suggestion_said")), h("ul", {}, found.speech.map((line) => h("li", {}, `“${line}”`)))) : "",
        found.why_rules ? h("small.why", {}, t("rules_because", { why: found.why_rules })) : "",
        found.refused.length ? h("small.why", {}, t("suggestion_left", { what: found.refused.slice(0, 4).join("; ") })) : "",
        h("div.cardfoot", {},
          button("check", t("accept"), accept, { extra: "strong" }),
          button("edit", t("edit"), () => { editing = editing === null ? found.text : null; show(); card.querySelector(".written").focus(); }, { "aria-pressed": String(editing !== null) }),
          button("again", t("another"), () => suggest(true)),
          h("span.spring"),
          button("close", t("dismiss"), close, { quiet: true })));
    }

    function accept() {
      const text = editing ?? found.text, about = { written_by: found.written_by }, idea = found.idea;
      close();
      put({ idea, text, about, mode: "suggest" });
      studio.setPrompt(text);
    }
    function undo() {
      const idea = value.idea;
      put({ idea: "", text: "", about: null });
      studio.setPrompt(idea);
      area()?.focus();
    }
    // A prompt that was emptied, or replaced by other words, has nothing to do with the old idea any more.
    document.addEventListener("input", (event) => {
      if (event.target !== area() || !value.idea) return;
      const words = (text) => pieces(text.toLowerCase()).filter((piece) => /[\p{L}\p{N}]/u.test(piece));
      const known = new Set([...words(value.text), ...words(value.idea)]), now = words(prompt());
      if (now.filter((word) => known.has(word)).length < now.length * RELATED || !now.length) put({ idea: "", text: "", about: null });
    });

    // ---- what is shown

    /** What can write may have changed: a model was downloaded, removed, or can run now. */
    async function learn() { choices = (await ask("writers")) ?? choices; draw(); }
    document.addEventListener("studio:writer-changed", learn);

    function writers() {
      if (!choices) return null;
      const own = value.file && choices.may_add ? [{ name: value.file.path, title: value.file.title, there: true }] : [];
      const there = [...choices.models, ...own];
      const name = (one) => (one.name === choices.bundled ? t("writer_bundled") : one.there ? one.title : t("writer_absent", { name: one.title, gigabytes: (one.size / 1e9).toFixed(1) }));
      const select = h("select", { "aria-label": t("writer"), onchange: () => { const shown = found; put({ model: select.value === choices.bundled ? null : select.value }); if (shown) suggest(false); } },
        there.map((one) => h("option", { value: one.name, disabled: !one.there, selected: one.name === (value.model || choices.bundled) }, name(one))),
        h("option", { value: choices.rules, selected: value.model === choices.rules }, t("writer_rules")));
      return h("label.writer", { title: t("writer") }, found ? "" : h("span", {}, t("writer")), select);
    }

    /** Writer, own file, picture: under the button with the sliders. */
    function drawPanel() {
      if (panel.hidden || !choices) return;
      const focus = panel.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      const link = (key, label, onclick) => h("button.link", { type: "button", "data-key": key, onclick }, label);
      const models = (label) => link("models", label, () => studio.showTab("models"));
      panel.replaceChildren(...[
        writers(),
        choices.may_add && h("div.writerlinks", {}, models(t("writer_more")), link("own", t("writer_own"), () => { path = path === null ? value.file?.path ?? "" : null; draw(); panel.querySelector("input")?.focus(); })),
        path !== null && h("form.ownfile", { onsubmit: (event) => { event.preventDefault(); useFile(); } },
          h("input", { type: "text", value: path, "data-key": "path", "aria-label": t("writer_path"), placeholder: t("writer_path"), spellcheck: "false", oninput: (event) => { path = event.target.value; } }),
          h("button.tool", { type: "submit" }, t("accept"))),
        looking(models),
      ].filter(Boolean));
      if (focus) panel.querySelector(`[data-key="${focus}"]`)?.focus();
    }
    async function useFile() {
      const answer = await ask("writers", { file: path });
      if (!answer) return;
      path = null;
      put({ file: answer.file, model: answer.file.path });
    }
    function looking(models) {
      const own = value.file && value.model === value.file.path && value.file.sees ? value.file.title : "";
      const named = choices.models.find((one) => one.name === value.model && one.sees)?.title;
      const eyes = own || named || choices.eyes, on = Boolean(eyes) && value.look !== false, get = choices.eyes_get;
      const needs = get ? t("look_needs", { name: get.name, gigabytes: (get.size / 1e9).toFixed(1) }) : t("look_none");
      return h("div.looking", {},
        h("button.switch", { type: "button", role: "switch", "data-key": "look", "aria-checked": String(on), disabled: !eyes, "aria-label": t("look"), "aria-describedby": "look-why", onclick: () => put({ look: !on }) }, h("i")),
        h("div", {}, h("b", {}, t("look")), h("small", { id: "look-why" }, eyes ? t(on ? "look_by" : "look_off", { name: eyes }) : [needs, get ? models(t("look_get")) : null].filter(Boolean).flatMap((piece) => [piece, " "]))));
    }

    function draw() {
      tune.hidden = value.mode === "off";
      if (tune.hidden) panel.hidden = true;
      tune.setAttribute("aria-expanded", String(!panel.hidden));
      drawPanel();
      for (const node of modes.children) {
        const on = node.dataset.mode === value.mode;
        node.setAttribute("aria-checked", String(on));
        node.tabIndex = on ? 0 : -1;
      }
      go.hidden = value.mode !== "suggest";
      go.replaceChildren(icon(writing ? "stop" : "wand"), h("span", {}, t(writing ? "stop_writing" : "suggest")));
      const missing = value.mode !== "off" && choices?.missing ? choices.missing : "";
      help.hidden = value.mode === "off";
      help.replaceChildren(...[value.mode === "automatic" ? h("span", {}, t("enhance_automatic_help")) : null, missing ? h("span", {}, missing) : null].filter(Boolean));
      if (!help.childNodes.length) help.hidden = true;
      taken_over.hidden = !(value.mode === "suggest" && value.idea);
      if (!taken_over.hidden) taken_over.replaceChildren(h("span", { title: value.idea }, t("idea_was", { idea: value.idea })), button("undo", t("undo"), undo));
    }
    watch("value", () => {
      const next = taken();
      if (JSON.stringify(next) === JSON.stringify(value)) return;
      stop();
      close();
      value = next;
      draw();
    });
    draw();
    studio.whenConnected(learn);
  });
})();

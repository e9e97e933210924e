// The Train tab: clips and captions, what a training takes, and trainings as they run.
(() => {
  const { t, h, icon, button, say, duration, kept, keep } = studio;
  const FRESH = { data: "", name: "", trigger: "", steps: 400, rank: 16, learn: "both", modules: "all", seconds: null, size: null, batch: 4, rate: null, seed: 1, keep: "", looks: "", clips: "wait" };
  const FEW = 6, VIDEOS = "video/*,.mkv,.mov,.webm,.avi,.gif,.txt,.jsonl,.csv";
  const NAMES = "http://www.w3.org/2000/svg";

  studio.part("train", (root, { server }) => {
    root.classList.add("train");
    const form = { ...FRESH, ...kept("train", {}) };
    let folder = null, planned = null, planning = 0, runs = [], model = null, timer = 0, asking = false, told = new Set();

    async function ask(data) {
      try {
        const answer = await server.train(data);
        if (answer.error) { if (data.do) say(answer.error, { bad: true }); return null; }
        return answer;
      } catch (error) { if (data.do) say(t("no_answer"), { bad: true }); console.warn(error); return null; }
    }

    // ---- fields

    function field(name, label, node, info) {
      node.id = `train-${name}`;
      node.addEventListener("change", () => changed(name, node));
      return h("div.trainfield", {}, h("label", { for: node.id }, label), node, info ? h("small", {}, info) : "");
    }
    function text(name, label, info, more = {}) { return field(name, label, h("input", { type: "text", spellcheck: "false", autocomplete: "off", value: form[name] ?? "", ...more }), info); }
    function number(name, label, info, more = {}) { return field(name, label, h("input", { type: "number", value: form[name] ?? "", ...more }), info); }
    function lines(name, label, hint) { const area = h("textarea", { rows: "2", placeholder: hint }); area.value = form[name]; return field(name, label, area); }
    function choice(name, label, choices) {
      return field(name, label, h("select", {}, choices.map(([value, words]) => h("option", { value, selected: String(form[name] ?? "") === value }, words))));
    }
    function changed(name, node) {
      const value = node.type === "number" ? (node.value === "" ? null : Number(node.value)) : node.value.trim();
      form[name] = value === null && FRESH[name] !== null ? FRESH[name] : name === "size" && !value ? null : value;
      if (node.type === "number" && node.value === "" && FRESH[name] !== null) node.value = FRESH[name];
      keep("train", form);
      if (["data", "seconds", "size"].includes(name)) look();
      else if (!["name", "keep", "looks", "clips", "seed"].includes(name)) plan();
    }

    const where = h("input", { type: "text", spellcheck: "false", id: "train-data", value: form.data, placeholder: t("train_folder_hint"), "aria-label": t("train_folder") });
    where.addEventListener("change", () => changed("data", where));
    where.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); changed("data", where); } });
    const files = h("input", { type: "file", accept: VIDEOS, multiple: true, tabindex: "-1", "aria-label": t("train_bring") });
    files.addEventListener("change", () => { bring([...files.files]); files.value = ""; });
    const bringing = button("drop", t("train_bring"), () => files.click(), { "data-do": "bring" });
    const clips = h("div.trainclips", { role: "list" }), found = h("p.hint", { role: "status" });
    const takes = h("div.traintakes", { role: "status" });
    const begin = h("button.trainbegin", { type: "button", "data-do": "begin", onclick: start }, t("train_begin"));
    const busy = h("p.hint", { hidden: true });
    const sizes = choice("size", t("train_size"), [["", t("train_auto")]]);
    const seconds = number("seconds", t("train_seconds"), "", { min: "0.2", max: "100", step: "any" });
    const list = h("div.trainruns", {});

    root.append(
      h("div.trainform", {},
        h("div.trainhead", {}, h("h2", {}, t("train_title")), h("p", {}, t("train_text"))),
        h("section", {}, h("h3", {}, t("train_clips")),
          h("div.trainwhere", {}, where, button("search", t("train_look"), () => changed("data", where), { "data-do": "look" }), bringing, files),
          found, clips),
        h("section", {},
          h("div.trainpair", {}, text("name", t("train_name"), "", { maxlength: "100" }), text("trigger", t("train_trigger"), t("train_trigger_info"), { maxlength: "100" })),
          h("div.trainpair", {}, number("steps", t("train_steps"), t("train_steps_info"), { min: "1", step: "1" }), number("rank", t("train_rank"), t("train_rank_info"), { min: "1", max: "512", step: "1" })),
          h("details.trainmore", {}, h("summary", {}, t("train_more")), h("div.trainrest", {},
            h("div.trainpair", {}, choice("learn", t("train_learn"), ["both", "picture", "sound"].map((v) => [v, t(`train_learn_${v}`)])), choice("modules", t("train_modules"), ["all", "attention"].map((v) => [v, t(`train_modules_${v}`)]))),
            h("div.trainpair", {}, seconds, sizes),
            h("div.trainpair", {}, number("batch", t("train_batch"), "", { min: "1", step: "1" }), number("rate", t("train_rate"), "", { min: "0", step: "any", placeholder: t("train_auto") })),
            lines("keep", t("train_keep"), t("train_keep_hint")), lines("looks", t("train_looks"), t("train_looks_hint")),
            h("div.trainpair", {}, choice("clips", t("train_turns"), ["wait", "first"].map((v) => [v, t(`train_turns_${v}`)])), number("seed", t("train_seed"), "", { min: "0", step: "1" }))))),
        h("section.traingo", {}, h("h3", {}, t("train_takes")), takes, begin, busy)),
      list);

    // ---- clips

    async function look() {
      if (!form.data) { folder = null; drawClips(); plan(); return; }
      const answer = await ask({ do: "look", form });
      folder = answer ? answer.folder : null;
      drawClips();
      plan();
    }

    function drawClips() {
      clips.replaceChildren(...(folder ? folder.clips.map(clipRow) : []));
      found.hidden = !folder;
      if (!folder) return;
      const good = folder.clips.filter((one) => one.pieces).length;
      const words = folder.clips.length ? t("train_found", { clips: good, files: folder.clips.length, pieces: folder.pieces, seconds: +folder.seconds.toFixed(2) }) : t("train_none");
      found.replaceChildren(h("span", {}, words), folder.pieces && folder.pieces < FEW ? h("span", {}, t("train_few")) : "", ...folder.notes.map((note) => h("span", {}, note)));
    }

    function clipRow(one) {
      const area = h("textarea", { rows: "2", "aria-label": t("train_caption", { name: one.name }), placeholder: t("train_caption_hint") });
      area.value = one.caption;
      area.addEventListener("change", async () => {
        const answer = await ask({ do: "caption", clip: one.id, text: area.value, form });
        if (!answer) return;
        const before = one.pieces;
        folder = answer.folder;
        const now = folder.clips.find((other) => other.id === one.id);
        if (!now || now.pieces !== before) drawClips(); else one.caption = now.caption;
        plan();
      });
      const video = h("video", { src: one.url, preload: "metadata", muted: true, loop: true, playsinline: true, "aria-hidden": "true", onmouseenter: () => video.play().catch(() => {}), onmouseleave: () => video.pause() });
      video.muted = true;
      const facts = [one.pieces > 1 ? t("train_pieces", { n: one.pieces }) : "", one.pieces && !one.sound ? t("train_silent") : ""].filter(Boolean).join(", ");
      return h(`div.trainclip${one.pieces ? "" : ".out"}`, { role: "listitem", "data-name": one.name }, h("div.face", {}, icon("clip"), video),
        h("div.trainabout", {}, h("div.trainfile", {}, h("b", { title: one.name }, one.name), h("small", {}, facts)), area, one.why ? h("small.bad", {}, one.why) : ""));
    }

    async function bring(chosen) {
      let done = 0;
      bringing.disabled = true;
      for (const file of chosen) {
        found.hidden = false;
        found.textContent = t("train_bringing", { done: ++done, count: chosen.length });
        const body = new FormData();
        body.append("file", file, file.name);
        try {
          const answer = await fetch(`/studio/upload/clip?folder=${encodeURIComponent(form.data)}`, { method: "POST", body });
          const told = await answer.json();
          if (!answer.ok) { say(told.error?.message || t("upload_failed"), { bad: true }); continue; }
          form.data = where.value = told.folder;
        } catch (error) { console.warn(error); say(t("upload_failed"), { bad: true }); }
      }
      bringing.disabled = false;
      keep("train", form);
      look();
    }

    // ---- what it takes, before anything begins

    let soon = 0;
    function plan() { clearTimeout(soon); planned = null; drawPlan(); if (folder && folder.pieces) soon = setTimeout(planNow, 600); }
    async function planNow() {
      const mine = ++planning;
      drawPlan(true);
      const answer = await ask({ do: "plan", form });
      if (mine !== planning) return;
      planned = answer ? answer.plan : null;
      drawPlan();
    }
    function drawPlan(waits = false) {
      begin.disabled = !folder?.pieces || Boolean(active());
      if (!folder?.pieces) { takes.replaceChildren(h("p.hint", {}, t("train_takes_first"))); return; }
      if (!planned) { takes.replaceChildren(h("p.hint", {}, waits ? t("train_takes_wait") : "")); return; }
      const time = planned.seconds === null ? t("train_takes_unknown") : t("train_takes_time", { time: duration(planned.seconds) });
      takes.replaceChildren(
        h("div.traintime", {}, icon("clock"), h("b", {}, time), planned.seconds === null ? "" : h("small", {}, t(planned.measured ? "train_takes_measured" : "train_takes_counted"))),
        h(`p.hint${planned.fits ? "" : ".warn"}`, {}, planned.fits ? "" : h("b", {}, t("train_small")), h("span", {}, `${planned.why[0].toUpperCase()}${planned.why.slice(1)}.`)),
        model ? h("small", {}, t("train_on", { model: model.name })) : "");
    }

    async function start() {
      begin.disabled = true;
      const answer = await ask({ do: "begin", form, step_seconds: planned?.step_seconds ?? null });
      if (answer) { say(t("train_begun")); told.delete(answer.begun); draw(answer); list.scrollIntoView({ block: "nearest" }); }
      else drawPlan();
      again(300);
    }

    // ---- trainings

    const active = () => runs.find((one) => ["waiting", "running", "stopping"].includes(one.state));
    const cards = new Map();

    async function go(data) {
      const answer = await ask(data);
      if (!answer) return;
      if (answer.say) say(answer.say);
      draw(answer);
      if (answer.lora) use(answer.lora);
      again(300);
    }

    async function use(lora) {
      await studio.useLora(lora.sha256);
      studio.showTab("create");
      const now = document.querySelector("#prompt textarea").value;
      if (lora.trigger && !now.toLowerCase().includes(lora.trigger.toLowerCase())) studio.setPrompt(now.trim() ? `${lora.trigger}, ${now}` : lora.trigger);
      say(t("train_used", { name: lora.name }));
    }

    function draw(answer) {
      if (!answer.runs) return;
      const had = Boolean(active());
      runs = answer.runs;
      if (!model || model.name !== answer.model.name) {
        model = answer.model;
        sizes.querySelector("select").replaceChildren(h("option", { value: "" }, t("train_auto")), ...model.sizes.map((size) => h("option", { value: size, selected: form.size === size }, size.replace("x", " × "))));
        if (form.size && !model.sizes.includes(form.size)) form.size = null;
        seconds.querySelector("input").placeholder = String(model.seconds);
      }
      const now = active();
      busy.hidden = !now;
      if (now) busy.textContent = t("train_one", { name: now.name });
      if (had !== Boolean(now)) drawPlan();
      const there = new Set(runs.map((one) => one.id));
      for (const [gone, { node }] of cards) if (!there.has(gone)) { node.remove(); cards.delete(gone); }
      if (!runs.length) { list.replaceChildren(h("div.blank", {}, icon("wand"), h("h2", {}, t("train_empty")), h("p", {}, t("train_empty_text")))); return; }
      list.querySelector(".blank")?.remove();
      runs.forEach((one, place) => {
        if (!cards.has(one.id)) cards.set(one.id, { node: h("article.trainrun", { "data-id": one.id }), key: "" });
        const card = cards.get(one.id);
        const key = JSON.stringify([one.state, one.problem, one.learned, one.samples.length]);
        if (card.key !== key) {
          const focused = card.node.contains(document.activeElement);
          card.node.replaceChildren(...inside(one));
          card.node.dataset.state = one.state;
          if (focused) card.node.querySelector("button")?.focus();
          card.key = key;
        }
        moved(card.node, one);
        if (list.children[place] !== card.node) list.insertBefore(card.node, list.children[place] || null);
      });
    }

    function inside(one) {
      const tools = [];
      const tool = (name, sign, words, run, extra = "") => tools.push(button(sign, words, run, { "data-do": name, "aria-label": `${words}: ${one.name}`, extra }));
      if (one.state === "done") tool("use", "use", t("train_use"), () => go({ do: "use", id: one.id }), "strong");
      if (["running", "waiting"].includes(one.state)) { tool("pause", "pause", t("train_pause"), () => go({ do: "pause", id: one.id })); tool("stop", "stop", t("train_stop"), () => ending(one)); }
      if (["paused", "failed"].includes(one.state)) {
        tool("go_on", one.state === "failed" ? "again" : "play", t(one.state === "failed" ? "train_try" : "train_go_on"), () => go({ do: "go_on", id: one.id }));
        if (one.learned) tool("finish", "check", t("train_keep_it"), () => go({ do: "finish", id: one.id }));
      }
      if (["paused", "failed", "done"].includes(one.state)) tool("remove", "bin", t("train_delete"), () => removing(one));
      const samples = one.samples.map((sample) => h("figure", {}, h("video", { src: sample.url, controls: true, loop: true, playsinline: true, preload: "metadata", "aria-label": t("train_sample", { step: sample.step }) }), h("figcaption", {}, t("train_at", { step: sample.step }))));
      return [
        h("div.trainrunhead", {}, h("h3", {}, one.name), one.trigger ? h("span.badge", {}, one.trigger) : "", h("span.spring"), h("div.traintools", {}, tools)),
        h("div.trainstate", { role: "status" }, one.state === "done" ? icon("check") : one.state === "failed" ? icon("alert") : "", h("span.trainwords"), h("span.spring"), h("small.trainleft")),
        h("progress", { max: "1", "aria-label": t("progress") }),
        one.problem ? h("p.bad", { role: "alert" }, one.problem) : "",
        h("div.traincurve", {}),
        samples.length ? h("div.trainsamples", {}, samples) : "",
      ];
    }

    function moved(node, one) {
      node.querySelector(".trainwords").textContent = one.text;
      node.querySelector(".trainleft").textContent = one.left ? t("eta", { time: duration(one.left) }) : "";
      const bar = node.querySelector("progress");
      bar.hidden = one.state === "done";
      bar.value = one.share;
      const curve = node.querySelector(".traincurve"), key = `${one.picture.length}/${one.step}`;
      if (curve.dataset.key !== key) { curve.dataset.key = key; curve.replaceChildren(...plot(one)); }
    }

    /** Both losses, each against its own highest value: what matters is where they go. */
    function plot(one) {
      const both = [["picture", one.picture], ["sound", one.sound]].filter(([, points]) => points.length > 1);
      if (!both.length) return one.state === "done" ? [] : [h("p.hint", {}, t("train_curve_wait"))];
      const svg = document.createElementNS(NAMES, "svg"), last = (points) => points[points.length - 1][1];
      svg.setAttribute("viewBox", "0 0 100 40");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("role", "img");
      const shown = (points) => (points.length ? last(points).toPrecision(3) : "–");
      svg.setAttribute("aria-label", t("train_curve", { name: one.name, picture: shown(one.picture), sound: shown(one.sound) }));
      for (const [name, points] of both) {
        const top = Math.max(...points.map((point) => point[1])) || 1, line = document.createElementNS(NAMES, "polyline");
        const smooth = [];
        for (const [step, loss] of points) smooth.push([step, smooth.length ? 0.8 * smooth[smooth.length - 1][1] + 0.2 * loss : loss]);
        const raw = document.createElementNS(NAMES, "polyline");
        for (const [node, some, kind] of [[raw, points, "raw"], [line, smooth, "smooth"]]) {
          node.setAttribute("points", some.map(([step, loss]) => `${((step / one.steps) * 100).toFixed(2)},${(39 - (loss / top) * 37).toFixed(2)}`).join(" "));
          node.setAttribute("class", `${name} ${kind}`);
          node.setAttribute("vector-effect", "non-scaling-stroke");
          svg.append(node);
        }
      }
      const legend = both.map(([name, points]) => h(`span.${name}`, {}, h("i"), `${t(`train_${name}_loss`)} ${last(points).toPrecision(3)}`));
      return [h("div.trainlegend", {}, h("small", {}, t("train_losses")), legend), svg];
    }

    function ending(one) {
      const dialog = sure(t("train_stop_ask", { name: one.name }), t("train_stop_text"), t("train_back"), [
        one.learned ? button("check", t("train_keep_it"), () => { dialog.close(); go({ do: "finish", id: one.id }); }, { "data-do": "finish" }) : null,
        button("pause", t("train_pause"), () => { dialog.close(); go({ do: "pause", id: one.id }); }, { "data-do": "sure-pause" }),
      ]);
    }
    function removing(one) {
      const dialog = sure(t("train_delete_ask", { name: one.name }), t("train_delete_text"), t("train_cancel"), [
        button("bin", t("train_delete"), () => { dialog.close(); go({ do: "remove", id: one.id }); }, { "data-do": "sure" })]);
    }
    function sure(title, words, back, tools) {
      const dialog = h("dialog.sure", { "aria-label": title, onclose: () => dialog.remove() }, h("h2", {}, title), h("p", {}, words),
        h("div.suretools", {}, button(null, back, () => dialog.close(), { autofocus: true }), tools));
      document.body.append(dialog);
      dialog.showModal();
      return dialog;
    }

    // ---- the line above the tabs, seen from everywhere

    const banner = h("div.banner.trainbanner", { hidden: true, role: "status" });
    document.querySelector(".topbar").after(banner);
    function announce(answer) {
      const now = active(), here = Boolean(root.offsetParent);
      banner.hidden = !answer.active || here;
      if (banner.hidden) return;
      const words = now ? `${t("train_banner", { name: now.name, text: now.text })} ${now.clips === "wait" ? t("train_banner_wait") : ""}` : t("train_banner_guest");
      banner.replaceChildren(icon("layers"), h("span", {}, words), h("span.spring"), now ? h("button.link", { type: "button", onclick: () => studio.showTab("train") }, t("train_show")) : "");
    }

    function again(wait) { clearTimeout(timer); timer = setTimeout(watch, wait); }
    async function watch() {
      if (asking || document.hidden) { again(1500); return; }
      asking = true;
      const answer = await ask({});
      asking = false;
      if (answer) { draw(answer); announce(answer); }
      again(active() ? 1200 : root.offsetParent ? 3000 : 6000);
    }
    document.addEventListener("click", (event) => { if (event.target.closest?.("#tabs button[role=tab]")) again(120); });
    drawPlan();
    drawClips();
    studio.whenConnected(() => { watch(); if (form.data) look(); });
  });
})();

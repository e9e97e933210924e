// The bar at the top, the doctor's report, the log, and what happens when a clip is done.
(() => {
  const { t, h, icon, button, kept, keep, say, ask } = studio;

  function setTheme(theme) {
    keep("theme", theme);
    const light = theme === "light" || (theme === "auto" && matchMedia("(prefers-color-scheme: light)").matches);
    document.documentElement.dataset.theme = light ? "light" : "dark";
    document.body.classList.toggle("dark", !light);
    document.dispatchEvent(new Event("studio:theme"));
  }
  studio.setTheme = setTheme;

  studio.part("topbar", (root) => {
    const model = h("span.model", { role: "status" });
    const banner = h("div.banner", { hidden: true, role: "status" });
    const lost = h("div.banner.lostbanner", { role: "alert" }, icon("alert"), t("lost"));
    const light = () => document.documentElement.dataset.theme === "light";
    const theme = button(light() ? "moon" : "sun", t("switch_theme"), () => { setTheme(light() ? "dark" : "light"); theme.replaceChildren(icon(light() ? "moon" : "sun")); }, { quiet: true });
    root.classList.add("topbar");
    root.append(h("div.brand", {}, icon("mark"), h("h1", {}, "MOVA Studio")), h("span.spring"), model, theme,
      button("help", t("shortcuts"), () => studio.help(), { quiet: true }));
    root.after(banner, lost);
    document.body.classList.toggle("dark", !light());
    studio.watch((state) => {
      const worker = state.worker;
      model.replaceChildren(h(`i.dot.${worker.state}`), h("span", {}, state.model), h("small", {}, t(`worker_${worker.state}`)));
      model.title = worker.device ? t("worker_title", { device: worker.device, memory: (worker.memory / 2 ** 30).toFixed(1) }) : "";
      banner.hidden = !state.shared;
      if (state.shared) banner.replaceChildren(icon("share"), h("span", {}, state.shared));
    });
  });

  // ---- done: a sound or a message, if asked for

  let before = null;
  studio.watch((state) => {
    const newest = state.clips[0]?.id ?? "";
    if (before !== null && newest && newest !== before && state.clips[0].fresh) done(state.clips[0], state.notify);
    before = newest;
  });
  function done(clip, how) {
    if (how === "sound") chime();
    if (how === "message" && "Notification" in window) {
      if (Notification.permission === "granted") new Notification(t("done_title"), { body: clip.prompt });
      else if (Notification.permission === "default") Notification.requestPermission();
    }
  }
  function chime() { // two soft notes, made here
    const audio = new AudioContext(), now = audio.currentTime;
    [[659.3, 0], [987.8, 0.14]].forEach(([pitch, at]) => {
      const tone = audio.createOscillator(), level = audio.createGain();
      tone.frequency.value = pitch;
      level.gain.setValueAtTime(0, now + at);
      level.gain.linearRampToValueAtTime(0.12, now + at + 0.02);
      level.gain.exponentialRampToValueAtTime(0.0005, now + at + 0.7);
      tone.connect(level).connect(audio.destination);
      tone.start(now + at);
      tone.stop(now + at + 0.75);
    });
    setTimeout(() => audio.close(), 1500);
  }

  // ---- text that can be copied: the doctor's report and the log

  async function copy(text) {
    try { await navigator.clipboard.writeText(text); }
    catch { // without a secure address browsers offer only the old way
      const area = h("textarea", {});
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(t("copied"));
  }

  studio.part("doctor", (root) => {
    const text = h("pre.report", { tabindex: "0", role: "region", "aria-label": t("doctor") }, t("doctor_wait"));
    const look = button("doctor", t("doctor_run"), async () => {
      look.disabled = true;
      text.textContent = t("doctor_busy");
      const answer = await ask("doctor");
      look.disabled = false;
      text.textContent = answer ? answer.text : t("doctor_wait");
    });
    root.append(h("div.reportbar", {}, look, button("copy", t("copy"), () => copy(text.textContent))), text);
  });

  // ---- the memory setting, in the planner's words

  studio.part("plan", (root) => {
    const text = h("p.hint.planned", { role: "status", hidden: true });
    let number = 0;
    const look = button("doctor", t("plan_ask"), plan);
    async function plan() {
      const mine = ++number;
      text.hidden = false;
      text.textContent = t("plan_busy");
      const answer = await ask("plan");
      if (mine !== number) return; // the setting was changed in the meantime
      text.textContent = answer ? [answer.why, answer.advice].filter(Boolean).join("; ") + "." : "";
    }
    document.addEventListener("studio:memory", plan);
    root.append(look, text);
  });

  studio.part("log", (root) => {
    const text = h("pre.report.log", { tabindex: "0", role: "region", "aria-label": t("log") });
    const search = h("input", { type: "search", placeholder: t("log_search"), "aria-label": t("log_search"), oninput: () => draw() });
    let all = "", at = 0;
    function draw() {
      const wanted = search.value.toLowerCase();
      const lines = wanted ? all.split("\n").filter((line) => line.toLowerCase().includes(wanted)) : all.split("\n");
      const low = text.scrollTop + text.clientHeight > text.scrollHeight - 40;
      text.replaceChildren(...lines.map((line) => h(`span.${/ (ERROR|CRITICAL) /.test(line) ? "bad" : / WARNING /.test(line) ? "warn" : "plain"}`, {}, line + "\n")));
      if (low || !at++) text.scrollTop = text.scrollHeight;
    }
    async function load() {
      if (!root.offsetParent || document.hidden) return;
      const answer = await ask("log");
      if (answer && answer.text !== all) { all = answer.text; draw(); }
    }
    root.append(h("div.reportbar", {}, h("label.search", {}, icon("search"), search), h("span.spring"), button("copy", t("copy"), () => copy(text.textContent))), text);
    load();
    setInterval(load, 2000);
  });
})();

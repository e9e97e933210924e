// The form's manners: Ctrl+Enter, the cost line, editing a waiting clip, files dropped anywhere, shortcuts.
(() => {
  const { t, h, icon, button, duration, say, fill } = studio;

  const typing = (node) => node?.matches?.("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
  const busy = (node) => typing(node) || node?.closest?.("button, a, summary, [role=slider], [role=radio], [role=menuitem], input, dialog");

  /** Presses Generate. */
  studio.generate = () => document.querySelector("#generate")?.click();

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      event.preventDefault();
      event.target.blur?.(); // a field tells its value when it is left
      setTimeout(studio.generate, 30);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || busy(event.target) || document.querySelector("dialog[open]")) return;
    if (event.key === "?") { event.preventDefault(); help(); }
    else if (event.key === "/") { event.preventDefault(); document.querySelector("#prompt textarea")?.focus(); }
    else if ("123456".includes(event.key)) studio.showTab(["create", "library", "train", "models", "settings", "log"][event.key - 1]);
    else if ([" ", "ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key) && studio.player && document.querySelector("#stage")?.offsetParent) studio.player.keys(event);
  });

  function help() {
    const rows = [["Ctrl + Enter", "key_generate"], ["Space", "key_play"], ["← →", "key_frame"], ["Shift + ← →", "key_second"], ["/", "key_prompt"], ["1 … 6", "key_tabs"], ["?", "key_help"]];
    const dialog = h("dialog.help", { "aria-label": t("shortcuts"), onclose: () => dialog.remove() },
      h("h2", {}, t("shortcuts")),
      h("dl", {}, rows.map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, t(what))))),
      h("form", { method: "dialog" }, h("button.tool", {}, t("close"))));
    document.body.append(dialog);
    dialog.showModal();
  }
  studio.help = help;

  // ---- what it will take

  studio.part("cost", (root, { props, watch }) => {
    const line = h("p.costline", { role: "status" });
    root.append(line);
    function draw() {
      const cost = props.value || {};
      if (cost.width) studio.setClipSize(cost.width, cost.height);
      if (cost.error) { line.className = "costline wrong"; line.replaceChildren(icon("alert"), cost.error); return; }
      line.className = "costline";
      if (!cost.width) { line.replaceChildren(t("cost_wait")); return; }
      const what = `${cost.seconds.toFixed(2)} s, ${cost.width} × ${cost.height}` + (cost.count > 1 ? `, ${t("times", { n: cost.count })}` : "");
      const parts = [];
      if (cost.time === null) parts.push(t("cost_unknown"));
      else parts.push(t(cost.exact ? "cost_time" : "cost_about", { time: duration(cost.time) }));
      if (cost.load > 1) parts.push(t("cost_load", { time: duration(cost.load) }));
      if (cost.memory) parts.push(t("cost_memory", { gigabytes: (cost.memory / 2 ** 30).toFixed(1) }));
      line.replaceChildren(icon("clock"), h("span", {}, h("b", {}, parts.join(", ")), h("small", {}, what)));
    }
    watch("value", draw);
    draw();
  });

  studio.part("answer", (root, { props, watch }) => {
    watch("value", () => {
      const answer = props.value;
      if (!answer) return;
      if (answer.error) say(answer.error, { bad: true });
      if (answer.say) say(answer.say);
      if (answer.submitted) {
        studio.submitted?.();
        if (matchMedia("(max-width: 1099px)").matches) document.querySelector("#stage")?.scrollIntoView({ behavior: "smooth", block: "start" });
      }
      if (answer.chosen) { // language, look or model: the page starts again with it
        for (const [name, value] of Object.entries(answer.chosen)) if (name !== "reload") studio.keep(name, value);
        setTimeout(() => location.reload(), 400);
      }
      studio.poll();
    });
  });

  studio.part("editing", (root, { props, trigger, watch }) => {
    const bar = h("div.editing", { role: "status" }, icon("edit"), h("span", {}, t("editing")), button(null, t("stop_editing"), () => { props.value = null; trigger("change"); draw(); }));
    root.append(bar);
    function draw() {
      bar.hidden = !props.value;
      document.querySelector("#generate")?.setAttribute("data-editing", props.value ? "1" : "");
      const words = document.querySelector("#generate");
      if (words) words.textContent = t(props.value ? "save_changes" : "generate");
    }
    watch("value", draw);
    draw();
  });

  // ---- a file dropped anywhere on the page

  let veil = null;
  studio.endDrop = () => { veil?.remove(); veil = null; };
  const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!files(event) || veil) return;
    veil = h("div.veil", { "aria-hidden": "true" }, h("div", {}, icon("drop"), h("strong", {}, t("drop_title")), h("span", {}, t("drop_text"))));
    document.body.append(veil);
  });
  document.addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) studio.endDrop(); });
  document.addEventListener("drop", async (event) => {
    studio.endDrop();
    if (!files(event) || event.defaultPrevented) return;
    event.preventDefault();
    studio.takeFile(event.dataTransfer.files[0]);
  });

  /** Restores the settings of a clip's file, takes a picture as the first frame, a LoRA into the library. */
  studio.takeFile = async (file) => {
    if (/\.safetensors$/i.test(file.name)) { studio.bringLora(file); return; }
    if (file.type.startsWith("image/")) {
      const got = await studio.upload(file);
      if (got) fill({ from: "upload", upload: got.id });
      return;
    }
    const form = new FormData();
    form.append("file", file, file.name);
    try {
      const answer = await fetch("/studio/settings", { method: "POST", body: form });
      const body = await answer.json();
      if (answer.ok) fill({ from: "spec", spec: body.spec });
      else say(body.error?.message || body.detail || t("upload_failed"), { bad: true });
    } catch { say(t("upload_failed"), { bad: true }); }
  };
})();

// The strip under the stage: what runs, what waits, what was made last.
(() => {
  const { t, h, icon, button, duration, act, fill } = studio;

  studio.part("strip", (root) => {
    const head = h("div.striphead", {});
    const jobs = h("ol.jobs", { "aria-label": t("queue") });
    const recent = h("div.recent", { role: "list", "aria-label": t("last_results") });
    root.classList.add("strip");
    root.append(head, jobs, h("h2.recenthead", {}, t("last_results")), recent);
    let drawnJobs = null, drawnClips = null;

    function job(one) {
      const waiting = one.state === "queued" || one.state === "paused";
      const tools = [];
      if (waiting) {
        tools.push(
          button("up", t("move_up"), () => act("move", { job: one.id, where: "up" }), { quiet: true }),
          button("down", t("move_down"), () => act("move", { job: one.id, where: "down" }), { quiet: true }),
          one.state === "paused"
            ? button("play", t("go_on"), () => act("go_on", { job: one.id }), { quiet: true })
            : button("pause", t("pause"), () => act("pause", { job: one.id }), { quiet: true }),
          button("edit", t("edit"), () => fill({ from: "job", job: one.id, edit: true }), { quiet: true }));
      }
      tools.push(button("copy", t("duplicate"), () => act("duplicate", { job: one.id }), { quiet: true }));
      if (waiting || one.state === "running") tools.push(button("close", t("cancel"), () => act("cancel", { job: one.id }), { quiet: true, disabled: one.cancelling }));
      else tools.push(
        button("again", t("try_again"), () => act("retry", { job: one.id }), { quiet: true }),
        button("close", t("dismiss"), () => act("forget", { job: one.id }), { quiet: true }));
      const when = one.state === "running" && one.eta !== null ? t("eta", { time: duration(one.eta) }) : one.state === "queued" ? t("turn", { n: one.position }) : "";
      const about = `${studio.stageText(one)}${when ? ", " + when : ""}`;
      const item = h(`li.job.${one.state}`, { draggable: waiting ? "true" : null, "data-id": one.id },
        h("span.face", {}, one.image ? h("img", { src: one.image, alt: "" }) : icon("clip")),
        h("span.what", {}, h("b", {}, one.prompt), h("small", {}, one.reason && one.state !== "running" ? one.reason : about)),
        h("span.tools", {}, tools));
      if (one.state === "running") item.style.setProperty("--share", one.share);
      return item;
    }

    function drawHead(state) {
      const waiting = state.counts.queued + state.counts.paused, more = waiting - state.waiting.length;
      head.hidden = !state.running && !waiting && !state.held && !state.failed.length;
      head.replaceChildren(
        h("h2", {}, t("queue")), h("small", {}, waiting ? t("waiting_count", { n: waiting }) : ""),
        state.held ? h("span.badge.warn", {}, icon("pause"), t("queue_held")) : "",
        more > 0 ? h("small", {}, t("more_waiting", { n: more })) : "",
        h("span.spring"));
      if (state.running && studio.isWatching && !studio.isWatching()) head.append(button("eye", t("watch"), () => studio.showRunning(), {}));
      if (state.may_hold) head.append(state.held
        ? button("play", t("queue_go_on"), () => act("hold", { on: false }), {})
        : button("pause", t("queue_pause"), () => act("hold", { on: true }), {}));
      if (waiting > 1) head.append(button("close", t("cancel_waiting"), () => act("cancel_waiting"), {}));
    }

    function clip(one) {
      const video = h("video", { muted: true, loop: true, playsinline: true, preload: "none", poster: one.thumb, tabindex: "-1", "aria-hidden": "true" });
      video.muted = true;
      const play = () => { if (!matchMedia("(prefers-reduced-motion: reduce)").matches) { if (!video.src) video.src = one.url; video.play().catch(() => {}); } };
      const tile = h("button.tile", { type: "button", onclick: () => studio.showClip(one), "aria-label": t("open_clip", { title: one.prompt }), onpointerenter: play, onpointerleave: () => video.pause() }, video);
      return h("div", { role: "listitem" }, tile);
    }

    studio.watch((state) => {
      const rows = [...(state.running ? [state.running] : []), ...state.waiting, ...state.failed];
      const key = JSON.stringify([rows.map((one) => ({ ...one, envelope: 0, preview_step: 0 })), state.counts, state.held, studio.isWatching?.()]);
      if (key !== drawnJobs && !root.querySelector(".dragged")) {
        drawnJobs = key;
        const focused = document.activeElement?.closest?.("li.job")?.dataset.id, label = document.activeElement?.getAttribute?.("aria-label");
        drawHead(state);
        jobs.replaceChildren(...rows.map(job));
        // Redrawing must not take the focus away from the button that was just pressed.
        if (focused) [...jobs.querySelectorAll(`li[data-id="${focused}"] button`)].find((b) => b.getAttribute("aria-label") === label)?.focus();
      }
      const clips = state.clips.slice(0, 12).map((one) => one.id).join();
      if (clips !== drawnClips) {
        drawnClips = clips;
        root.querySelector(".recenthead").hidden = !clips;
        recent.replaceChildren(...state.clips.slice(0, 12).map(clip));
      }
    });

    // ---- reorder by dragging
    let held = null;
    jobs.addEventListener("dragstart", (event) => { held = event.target.closest("li"); held.classList.add("dragged"); event.dataTransfer.effectAllowed = "move"; });
    jobs.addEventListener("dragover", (event) => {
      const over = event.target.closest("li[draggable]");
      if (!held || !over || over === held) return;
      event.preventDefault();
      const after = event.clientY > over.getBoundingClientRect().top + over.offsetHeight / 2;
      over[after ? "after" : "before"](held);
    });
    jobs.addEventListener("dragend", async () => {
      if (!held) return;
      const order = [...jobs.querySelectorAll("li[draggable]")].map((li) => li.dataset.id);
      const id = held.dataset.id, before = studio.state.waiting.findIndex((one) => one.id === id), now = order.indexOf(id);
      held.classList.remove("dragged");
      held = null;
      drawnJobs = "";
      if (now !== before) await act("move", { job: id, where: now < before ? "up" : "down", times: Math.abs(now - before) });
    });
  });
})();

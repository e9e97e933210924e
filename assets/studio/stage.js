// The stage: what is being made, what was made, or what could be made. The biggest thing on the page.
(() => {
  const { t, h, icon, button, duration, act, fill, say } = studio;
  const EXPORTS = ["mp4", "webm", "gif", "wav", "png"];

  // A click elsewhere closes an open menu.
  document.addEventListener("pointerdown", (event) => {
    for (const box of document.querySelectorAll("details.more[open]")) if (!box.contains(event.target)) box.open = false;
  });

  /** A row of things to do with a clip; `player` gives the trim. */
  function actions(clip, player) {
    const cut = button("trim", t("trim"), () => {
      const on = cut.getAttribute("aria-pressed") !== "true";
      cut.setAttribute("aria-pressed", String(on));
      player.trimming(on);
    }, { "aria-pressed": "false" });
    const menu = (name, label, items) => {
      const list = h("div.menu", { role: "menu" }, items.map(([text, run, hint]) =>
        h("button", { type: "button", role: "menuitem", onclick: () => { box.removeAttribute("open"); run(); } }, h("span", {}, text), hint ? h("small", {}, hint) : null)));
      const box = h("details.more", {}, h("summary.tool", { role: "button" }, icon(name), h("span", {}, label)), list);
      box.addEventListener("toggle", () => {
        if (!box.open) return;
        const place = box.getBoundingClientRect(), room = innerHeight - place.bottom;
        box.classList.toggle("upwards", room < list.offsetHeight + 12 && place.top > room);
      });
      box.addEventListener("keydown", (event) => { if (event.key === "Escape" && box.open) { box.open = false; box.firstChild.focus(); event.stopPropagation(); } });
      return box;
    };
    const exported = (kind) => {
      const range = player.range();
      const query = kind === "png" ? `at=${player.video.currentTime.toFixed(4)}` : range ? `start=${range[0].toFixed(4)}&end=${range[1].toFixed(4)}` : "";
      say(t("exporting", { kind }));
      download(`/media/clips/${clip.id}/export/${kind}?${query}`);
    };
    return h("div.actions", { role: "toolbar", "aria-label": t("actions") },
      cut,
      menu("export", t("export"), EXPORTS.map((kind) => [t(`export_${kind}`), () => exported(kind), kind])),
      menu("again", t("again"), [
        [t("again_same"), () => act("again", { clip: clip.id })],
        [t("again_new"), () => act("again", { clip: clip.id, new_seed: true })],
        [t("sound_again"), () => act("again", { clip: clip.id, keep: "picture" }), t("sound_again_help")],
        [t("picture_again"), () => act("again", { clip: clip.id, keep: "sound" }), t("picture_again_help")],
      ]),
      menu("extend", t("extend"), [
        [t("extend_same"), () => act("extend", { clip: clip.id })],
        [t("extend_form"), () => act("extend", { clip: clip.id, prompt: document.querySelector("#prompt textarea")?.value ?? "" }), t("extend_form_help")],
      ]),
      menu("use", t("use"), [
        [t("use_settings"), () => fill({ from: "clip", clip: clip.id })],
        [t("use_seed"), () => fill({ from: "seed", clip: clip.id })],
        [t("use_last_frame"), () => fill({ from: "last_frame", clip: clip.id })],
      ]),
      h("span.spring"),
      favourite(clip),
      button("bin", t("delete"), () => studio.remove(clip), { quiet: true }));
  }
  studio.clipActions = actions;

  function favourite(clip) {
    const star = button("star", t("favourite"), async () => {
      const on = star.getAttribute("aria-pressed") !== "true";
      if (await act("favourite", { clip: clip.id, on })) { clip.favourite = on; star.setAttribute("aria-pressed", String(on)); }
    }, { quiet: true, extra: "star", "aria-pressed": String(clip.favourite) });
    return star;
  }
  studio.favouriteButton = favourite;

  /** Deletes a clip and offers to take it back. */
  studio.remove = async (clip) => {
    if (!(await studio.ask("act", { do: "delete", clip: clip.id }))) return;
    document.dispatchEvent(new CustomEvent("studio:gone", { detail: clip.id }));
    say(t("deleted"), { seconds: 12, action: { label: t("undo"), run: () => act("undo_delete", { clip: clip.id }) } });
    studio.poll();
    document.dispatchEvent(new CustomEvent("studio:library"));
  };

  /** Saves what an address answers as a file; a refusal becomes a notice instead of a strange file. */
  async function download(address) {
    try {
      const answer = await fetch(address);
      if (!answer.ok) {
        const body = await answer.json().catch(() => ({}));
        say(body.error?.message || body.detail || t("export_failed"), { bad: true });
        return;
      }
      const name = /filename\*?=(?:UTF-8'')?"?([^";]+)/.exec(answer.headers.get("content-disposition") || "");
      const link = h("a", { href: URL.createObjectURL(await answer.blob()), download: name ? decodeURIComponent(name[1]) : "clip" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    } catch { say(t("no_answer"), { bad: true }); }
  }

  function examples(cards) {
    return h("div.examples", { role: "list" }, cards.map((card) => h("button.example", { type: "button", role: "listitem", onclick: () => fill({ from: "example", name: card.name }) },
      h("img", { src: card.image, alt: "", loading: "lazy", width: "288", height: "162" }), h("span", {}, card.prompt))));
  }

  studio.part("stage", (root, { props }) => {
    const place = h("div.place");
    const under = h("div.under");
    root.classList.add("stage");
    root.append(place, under);
    let view = null, player = null, shownClip = null, chosen = null, result = null, seen = null, preview = null;

    function empty() {
      if (view === "empty") return;
      clear("empty");
      const note = studio.state.note;
      place.append(h("div.blank", {}, icon("clip"), h("h2", {}, t("welcome")), h("p", {}, t("welcome_text")), note ? h("p.note", {}, note) : null));
      under.append(h("h3", {}, t("examples")), examples(props.examples || []));
    }

    function clear(next) {
      if (player) { player.stop(); player = null; }
      shownClip = null;
      place.replaceChildren();
      under.replaceChildren();
      view = next;
      root.dataset.view = next;
    }

    // ---- a clip

    function clip(one, start = false) {
      if (view !== "clip") { clear("clip"); player = studio.makePlayer(place); studio.player = player; }
      if (shownClip === one.id) return;
      shownClip = one.id;
      player.show(one, start);
      const facts = `${one.width} × ${one.height}, ${one.seconds.toFixed(2)} s, ${one.fps} ${t("fps")}, ${t("seed")} ${one.seed}`;
      under.replaceChildren(actions(one, player), h("div.about", {}, h("p", {}, one.prompt), h("small", {}, facts), one.written ? h("details.gotten", {}, h("summary", {}, t("written_as")), h("p", {}, one.written)) : null));
    }

    // ---- a running job

    function running(job) {
      if (view !== `job ${job.id}`) {
        clear(`job ${job.id}`);
        root.dataset.view = "job";
        const picture = h("img", { alt: t("preview") });
        const bars = h("canvas", { "aria-hidden": "true" });
        const shape = h("div.screen", {}, picture, h("p.waiting", {}));
        shape.style.aspectRatio = `${job.width} / ${job.height}`;
        shape.style.setProperty("--shape", job.width / job.height);
        const line = h("div.progress", { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": t("progress") }, h("i"));
        place.append(shape, h("div.wave.live", {}, bars), line, h("div.playbar", {}, h("strong.stagename", { role: "status" }), h("span.spring"), h("span.eta"),
          button("stop", t("cancel"), () => act("cancel", { job: job.id }))));
        under.append(h("div.about", {}, h("p", {}, job.prompt), h("small", {}, `${job.width} × ${job.height}, ${job.seconds.toFixed(2)} s, ${t("seed")} ${job.seed}`)));
        preview = { step: -1, picture, bars, shape };
        if (job.image) picture.src = job.image;
      }
      place.querySelector(".stagename").textContent = studio.stageText(job);
      place.querySelector(".eta").textContent = job.eta === null ? "" : t("eta", { time: duration(job.eta) });
      const line = place.querySelector(".progress");
      line.firstChild.style.width = `${Math.round(job.share * 100)}%`;
      line.setAttribute("aria-valuenow", Math.round(job.share * 100));
      place.querySelector("button").disabled = job.cancelling;
      if (job.preview_step !== null && job.preview_step !== preview.step) {
        preview.step = job.preview_step;
        const next = new Image(); // swapped in when it is there, so that nothing flickers
        next.onload = () => { preview.picture.src = next.src; preview.shape.classList.add("has"); };
        next.src = `/media/jobs/${job.id}/preview?step=${job.preview_step}`;
      }
      envelope(preview.bars, job.envelope);
    }

    function envelope(canvas, values) {
      const ratio = devicePixelRatio || 1, box = canvas.parentElement, g = canvas.getContext("2d");
      canvas.width = Math.round(box.clientWidth * ratio);
      canvas.height = Math.round(box.clientHeight * ratio);
      g.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--wave");
      const count = values.length || 96, step = canvas.width / count, mid = canvas.height / 2;
      for (let i = 0; i < count; i++) {
        const half = Math.max(ratio, (values[i] || 0) * (mid - 4 * ratio));
        g.fillRect(i * step, mid - half, Math.max(1, step * 0.6), half * 2);
      }
    }

    // ---- which of them

    /** Shows a clip until a newer result comes. */
    studio.showClip = (one) => { chosen = one; clip(one); studio.showTab("create"); if (root.getBoundingClientRect().top < 0) root.scrollIntoView({ block: "start" }); };
    studio.showRunning = () => { chosen = null; result = null; decide(studio.state); };
    studio.isWatching = () => root.dataset.view === "job";

    function decide(state) {
      const newest = state.clips[0];
      if (seen !== null && newest && newest.id !== seen && newest.fresh) {
        studio.price();
        // Who watches the making sees the result at once; who looks at another clip is only told.
        if (chosen) say(t("clip_done"), { action: { label: t("show"), run: () => studio.showClip(newest) } });
        else { result = newest; clip(newest, true); }
      }
      seen = newest ? newest.id : "";
      if (chosen) clip(chosen);
      else if (result) clip(result);
      else if (state.running) running(state.running);
      else if (newest) clip(newest);
      else empty();
    }
    studio.watch(decide);
    // A new job was asked for: its making is what one wants to see.
    studio.submitted = () => { chosen = null; result = null; decide(studio.state); };
    document.addEventListener("studio:gone", (event) => {
      if (chosen?.id === event.detail) chosen = null;
      if (result?.id === event.detail) result = null;
    });
  });

  /** What a job is doing, in words. */
  studio.stageText = (job) => {
    if (job.state !== "running") return t(`state_${job.state}`);
    if (job.stage === "denoise") return t("stage_denoise", { step: job.step, steps: job.steps });
    return t(`stage_${job.stage || "loading"}`);
  };
})();

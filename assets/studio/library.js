// The library: every clip as a tile that plays under the pointer; search, favourites, two clips side by side.
(() => {
  const { t, h, icon, button, ask, fill } = studio;

  studio.part("library", (root, { watch }) => {
    root.classList.add("library");
    let search = "", favourites = false, picked = [], total = 0, clips = [], loading = false;
    const field = h("input", { type: "search", placeholder: t("search_hint"), "aria-label": t("search"), oninput: () => { clearTimeout(field.later); field.later = setTimeout(() => { search = field.value; load(true); }, 200); } });
    const only = button("star", t("favourites"), () => { favourites = !favourites; only.setAttribute("aria-pressed", String(favourites)); load(true); }, { "aria-pressed": "false" });
    const count = h("span.count", { role: "status" });
    const compare = button("compare", t("compare"), () => open(picked), { disabled: true });
    const folder = button("folder", t("open_folder"), () => studio.act("open_folder"));
    const bar = h("div.librarybar", { role: "toolbar", "aria-label": t("library") }, h("label.search", {}, icon("search"), field), only, compare, h("span.spring"), count, folder);
    const grid = h("div.grid", { role: "list" });
    const more = button(null, t("show_more"), () => load(false), { extra: "showmore", hidden: true });
    const nothing = h("div.blank", { hidden: true }, icon("clip"), h("h2", {}, t("library_empty")), h("p", {}, t("library_empty_text")));
    root.append(bar, grid, more, nothing);

    async function load(fresh) {
      if (loading) { loading = "again"; return; }
      loading = true;
      const answer = await ask("clips", { search, favourites, offset: fresh ? 0 : clips.length, limit: fresh ? Math.max(48, clips.length) : 48 });
      const again = loading === "again";
      loading = false;
      if (again) { load(true); return; }
      if (!answer) return;
      total = answer.total;
      clips = fresh ? answer.clips : [...clips, ...answer.clips];
      folder.hidden = !answer.may_open;
      draw();
    }

    function draw() {
      picked = picked.filter((one) => clips.some((other) => other.id === one.id));
      const old = new Map([...grid.children].map((node) => [node.dataset.id, node]));
      grid.replaceChildren(...clips.map((one) => old.get(one.id) || card(one)));
      more.hidden = clips.length >= total;
      nothing.hidden = total > 0;
      nothing.querySelector("h2").textContent = t(search || favourites ? "nothing_found" : "library_empty");
      count.textContent = total === 1 ? t("one_clip") : t("clip_count", { n: total });
      mark();
    }

    function mark() {
      compare.disabled = picked.length !== 2;
      for (const node of grid.children) {
        const on = picked.some((one) => one.id === node.dataset.id);
        node.classList.toggle("picked", on);
        node.querySelector(".pick").setAttribute("aria-pressed", String(on));
      }
    }

    function card(one) {
      const video = h("video", { loop: true, playsinline: true, preload: "none", poster: one.thumb, tabindex: "-1", "aria-hidden": "true" });
      video.muted = true;
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      const play = () => { if (still) return; if (!video.src) video.src = one.url; video.play().catch(() => {}); };
      const open = h("button.tile", { type: "button", "aria-label": t("open_clip", { title: one.prompt }), onclick: () => studio.showClip(one), onpointerenter: play, onpointerleave: () => video.pause(), onfocus: play, onblur: () => video.pause() }, video);
      const pick = button("compare", t("pick"), () => {
        picked = picked.some((other) => other.id === one.id) ? picked.filter((other) => other.id !== one.id) : [...picked.slice(-1), one];
        mark();
      }, { quiet: true, extra: "pick", "aria-pressed": "false" });
      return h("article.card", { role: "listitem", "data-id": one.id }, open,
        h("p", { title: one.prompt }, one.prompt),
        h("div.cardbar", {}, h("small", {}, `${one.seconds.toFixed(1)} s, ${one.width} × ${one.height}`), h("span.spring"), pick, studio.favouriteButton(one),
          button("use", t("use_settings"), () => fill({ from: "clip", clip: one.id }), { quiet: true }),
          button("bin", t("delete"), () => studio.remove(one), { quiet: true })));
    }

    // ---- two clips, one playhead

    function open(pair) {
      const close = () => { for (const p of players) p.stop(); cancelAnimationFrame(follow); dialog.close(); dialog.remove(); };
      const dialog = h("dialog.compare", { "aria-label": t("compare"), onclose: close });
      const sides = pair.map(() => h("div.side"));
      const players = sides.map((side) => studio.makePlayer(side, { compact: true }));
      const [lead, other] = players;
      let follow = 0;
      const play = button("play", t("play"), () => lead.toggle(), { quiet: true, extra: "play" });
      const hear = button("sound", t("hear_other"), () => { lead.video.muted = !lead.video.muted; other.video.muted = !lead.video.muted; heard(); }, {});
      function heard() { sides[0].classList.toggle("heard", !lead.video.muted); sides[1].classList.toggle("heard", lead.video.muted); }
      dialog.append(h("div.pair", {}, sides), h("div.playbar", {}, play, h("span", {}, t("one_playhead")), h("span.spring"), hear, button("close", t("close"), close, {})));
      pair.forEach((one, i) => { players[i].show(one); sides[i].append(h("p", {}, one.prompt), h("small", {}, `${t("seed")} ${one.seed}, ${one.steps} ${t("steps_unit")}, ${one.width} × ${one.height}`)); });
      other.video.muted = true;
      other.video.loop = false;
      heard();
      for (const name of ["play", "pause"]) lead.video.addEventListener(name, () => { play.replaceChildren(icon(lead.video.paused ? "play" : "pause")); if (lead.video.paused) other.video.pause(); else other.video.play().catch(() => {}); });
      other.wave.addEventListener("pointerdown", () => requestAnimationFrame(() => lead.seek(other.video.currentTime)));
      const step = () => { // the lead's clock is the one that counts
        const gap = other.video.currentTime - Math.min(lead.video.currentTime, other.video.duration || 0);
        if (Math.abs(gap) > (lead.video.paused ? 0.001 : 0.045)) other.video.currentTime = Math.min(lead.video.currentTime, other.video.duration || 0);
        if (!lead.video.paused && other.video.paused && !other.video.ended) other.video.play().catch(() => {});
        follow = requestAnimationFrame(step);
      };
      document.body.append(dialog);
      dialog.showModal();
      follow = requestAnimationFrame(step);
      lead.toggle();
    }

    let revision = null;
    studio.watch((state) => { if (revision !== state.library) { revision = state.library; load(true); } });
    document.addEventListener("studio:library", () => load(true));
  });
})();

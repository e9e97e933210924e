// The Models tab: the catalogue and what is here, with downloads that can be paused, checks, and removing.
(() => {
  const { t, h, icon, button, ask, say, duration } = studio;
  const KINDS = ["mova", "enhancer", "other"];
  const MOVING = ["asking", "waiting", "running", "checking"];
  const GOOD = ["verified", "unchecked"];

  /** Bytes for people; decimal units, as drives are sold. */
  function bytes(size) {
    const [unit, factor] = size >= 1e9 ? ["GB", 1e9] : size >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
    return `${(size / factor).toFixed(1)} ${unit}`;
  }

  studio.part("models", (root) => {
    root.classList.add("models");
    const where = h("input", { type: "text", spellcheck: "false", "aria-label": t("models_where"), oninput: () => { change.hidden = where.value.trim() === folder; } });
    const free = h("span.count");
    const change = button("check", t("models_change"), () => go({ do: "folder", text: where.value }), { hidden: true });
    where.addEventListener("keydown", (event) => { if (event.key === "Enter" && !change.hidden) change.click(); });
    const lists = Object.fromEntries(KINDS.map((kind) => [kind, h("div.modellist", { role: "list" })]));
    const sections = KINDS.map((kind) => h("section", { hidden: true, "data-kind": kind }, h("h2", {}, t(`models_${kind}`)), lists[kind]));
    const writer = h("p.writer", { role: "status", hidden: true }); // the program that the enhancer's models need
    const tell = () => { writer.textContent = studio.writerWords || ""; writer.hidden = !studio.writerWords; };
    document.addEventListener("studio:writer", tell);
    tell();
    sections[1].firstChild.after(writer);
    root.append(sections[0], sections[1], sections[2],
      h("div.modelsfoot", {}, h("label.where", {}, icon("folder"), h("span", {}, t("models_where")), where), change, free, h("p.hint", {}, t("models_note"))));

    let folder = "", timer = 0, asking = false;
    const id = (one) => `${one.kind}/${one.name}`; // the bundled ones of both kinds have one name
    const drawn = new Map(); // id -> {key, node, now}

    async function go(data = {}) {
      clearTimeout(timer);
      if (asking && !data.do) return;
      asking = true;
      const answer = await ask("shelf", data);
      asking = false;
      if (answer) {
        if (answer.say) say(answer.say);
        if (data.do === "use") { setTimeout(() => location.reload(), 900); return; } // sizes and defaults are another model's
        draw(answer);
      }
      timer = setTimeout(look, answer?.busy ? 700 : 4000);
    }
    function look() {
      if (root.offsetParent && !document.hidden) go();
      else timer = setTimeout(look, 500);
    }

    function draw(answer) {
      if (folder !== answer.folder) { folder = answer.folder; where.value = folder; change.hidden = true; }
      free.textContent = t("models_free", { free: bytes(answer.free) });
      const there = new Set(answer.models.map(id));
      for (const [gone, { node }] of drawn) if (!there.has(gone)) { node.remove(); drawn.delete(gone); }
      for (const one of answer.models) {
        const list = lists[one.kind] || lists.other;
        // What moves is written into the row that stands; only a change of state draws it anew.
        one.waits = answer.fetching;
        const key = JSON.stringify([one.waits, one.condition, one.may, one.message, one.used, one.good, one.size, one.place]);
        const old = drawn.get(id(one));
        if (old?.key !== key) {
          const node = row(one);
          const focused = old?.node.contains(document.activeElement);
          if (old) old.node.replaceWith(node); else list.append(node);
          if (focused) node.querySelector("button")?.focus();
          drawn.set(id(one), { key, node });
        }
        drawn.get(id(one)).now = one;
        moved(drawn.get(id(one)).node, one);
      }
      for (const section of sections) section.hidden = !lists[section.dataset.kind].children.length;
    }

    function badge(one) {
      const bad = ["damaged", "failed"].includes(one.condition), good = GOOD.includes(one.condition);
      return h(`span.badge${bad ? ".warn" : ""}`, {}, bad ? icon("alert") : good ? icon("check") : "", t(`model_${one.condition}`));
    }

    function row(one) {
      const words = (name) => (name === "get" && ["paused", "failed"].includes(one.condition) ? "model_go_on" : `model_${name}`);
      const icons = { get: "drop", pause: "pause", cancel: "close", verify: "check", stop: "stop", repair: "again", remove: "bin", use: "use" };
      const now = () => drawn.get(id(one)).now; // as it stands when the button is pressed
      const act = { remove: () => sure(now(), "remove"), cancel: () => sure(now(), "cancel") };
      const blocked = (name) => (one.waits && ["get", "repair"].includes(name) ? { disabled: true, title: t("model_one") } : {});
      const tools = one.may.map((name) => button(icons[name], t(words(name)), act[name] || (() => go({ do: name, name: one.name })),
        { "data-do": name, "aria-label": t("model_act", { what: t(words(name)), name: one.name }), ...blocked(name) }));
      const facts = [bytes(one.size), one.licence].filter(Boolean).join(", ");
      const short = one.condition === "absent" && one.size > one.free;
      return h("article.modelrow", { role: "listitem", "data-name": one.name, "data-condition": one.condition },
        h("div.modelhead", {}, h("b", {}, one.name), badge(one), one.used ? h("span.badge", {}, icon("use"), t("model_used")) : "",
          one.good ? h("small", {}, t("model_whole")) : ""),
        h("p", {}, one.about),
        h("small.facts", {}, facts, one.page ? h("a", { href: one.page, target: "_blank", rel: "noreferrer" }, t("model_page")) : ""),
        h("small.lies", {}, one.place),
        short ? h("small.warn", {}, t("model_short", { free: bytes(one.free) })) : "",
        one.message ? h("small.bad", { role: "alert" }, one.message) : "",
        MOVING.includes(one.condition) || one.condition === "paused" || (one.condition === "failed" && one.done)
          ? h("div.moving", {}, h("progress", { max: "1", "aria-label": one.name }), h("small", {})) : "",
        h("div.modeltools", {}, tools));
    }

    function moved(node, one) {
      const place = node.querySelector(".moving");
      if (!place) return;
      const bar = place.querySelector("progress"), known = one.total > 0 && !["asking", "waiting"].includes(one.condition);
      if (known) bar.value = one.done / one.total; else bar.removeAttribute("value");
      const running = ["running", "checking"].includes(one.condition);
      const parts = [t("model_progress", { done: bytes(one.done), size: bytes(one.total) })];
      if (running && one.rate) parts.push(`${bytes(one.rate)}/s`);
      if (running && one.left) parts.push(t("model_left", { left: duration(one.left) }));
      place.querySelector("small").textContent = parts.join(", ");
    }

    /** Asks before bytes are deleted. */
    function sure(one, what) {
      const text = what === "cancel" ? t("model_cancel_text", { done: bytes(one.done) })
        : one.ours ? t("model_remove_text", { size: bytes(one.size), place: one.place }) : t("model_forget_text", { place: one.place });
      if (what === "cancel" && !one.done) { go({ do: what, name: one.name }); return; }
      const dialog = h("dialog.sure", { "aria-label": t(`model_${what}_ask`, { name: one.name }), onclose: () => dialog.remove() },
        h("h2", {}, t(`model_${what}_ask`, { name: one.name })), h("p", {}, text),
        h("div.suretools", {}, button(null, t("model_keep"), () => dialog.close(), { autofocus: true }),
          button("bin", t("delete"), () => { dialog.close(); go({ do: what, name: one.name }); }, { "data-do": "sure" })));
      document.body.append(dialog);
      dialog.showModal();
    }

    studio.whenConnected(look);
  });
})();

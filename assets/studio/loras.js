// LoRAs: chosen ones with strength and trigger words, and the library they come from.
(() => {
  const { t, h, icon, button, say, ask } = studio;
  const PARTS = ["high", "low", "sound"];
  const HIGHEST = 2; // of the slider; numbers up to 10 can be typed

  studio.part("loras", (root, { props, trigger, watch }) => {
    let chosen = taken(), known = null, folder = "", open = false, search = "";
    function taken() { return Array.isArray(props.value?.chosen) ? props.value.chosen : []; }
    const entry = (sha) => known?.find((one) => one.sha256 === sha);
    studio.chosenLoras = () => chosen;

    const input = h("input", { type: "file", accept: ".safetensors", tabindex: "-1", "aria-hidden": "true", hidden: true });
    const add = button("plus", t("lora_add"), () => { open = !open; if (open) load(); draw(); if (open) root.querySelector("input[type=search]")?.focus(); }, { "aria-expanded": "false" });
    const rows = h("div.lorarows");
    const pick = h("div.lorapick", { hidden: true, role: "group", "aria-label": t("loras") });
    root.classList.add("loras");
    root.append(h("div.enhancebar", {}, h("span.label", {}, t("loras")), h("span.spring"), add), rows, pick, input);
    input.addEventListener("change", () => { if (input.files[0]) studio.bringLora(input.files[0]); input.value = ""; });

    function put(next) {
      chosen = next;
      props.value = { chosen };
      trigger("change");
      draw();
    }
    const change = (sha, changes) => put(chosen.map((one) => (one.sha256 === sha ? { ...one, ...changes } : one)));

    async function load() {
      const answer = await ask("loras");
      if (!answer) return;
      known = answer.loras;
      folder = answer.folder;
      input.dataset.may = answer.may_add ? "1" : "";
      draw();
    }

    /** Copies a file into the library and chooses it. */
    studio.bringLora = async (file) => {
      say(t("lora_adding", { name: file.name }));
      const form = new FormData();
      form.append("file", file, file.name);
      try {
        const answer = await fetch("/studio/upload/lora", { method: "POST", body: form });
        const body = await answer.json();
        if (!answer.ok) { say(body.error?.message || t("upload_failed"), { bad: true }); return; }
        say(t("lora_added", { name: body.name }));
        await load();
        choose(body.sha256);
      } catch (error) { console.warn(error); say(t("upload_failed"), { bad: true }); }
    };

    function choose(sha) {
      const one = entry(sha);
      if (!one || one.status === "no" || chosen.some((other) => other.sha256 === sha)) return;
      put([...chosen, { sha256: sha, name: one.name, high: 1, low: 1, sound: 1 }]);
    }

    /** Chooses one of the library, which may have come this moment. */
    studio.useLora = async (sha) => { await load(); choose(sha); };

    // ---- one that is chosen

    function badge(one) {
      if (!known) return "";
      if (!one) return h("span.badge.warn", {}, icon("alert"), t("lora_missing"));
      const good = one.status === "fits";
      return h(`button.badge${good ? "" : ".warn"}`, { type: "button", onclick: () => report(one), "aria-label": `${one.name}: ${t(`lora_${one.status}`)}` }, icon(good ? "check" : "alert"), t(`lora_${one.status}`));
    }

    function strength(label, value, set) {
      const range = h("input", { type: "range", min: "0", max: String(HIGHEST), step: "0.05", "aria-label": label });
      const number = h("input.number", { type: "number", min: "-10", max: "10", step: "0.05", "aria-label": label });
      const shown = (now) => { range.value = now; number.value = now; range.style.setProperty("--share", `${Math.min(100, Math.max(0, (now / HIGHEST) * 100))}%`); };
      range.addEventListener("input", () => shown(Number(range.value)));
      range.addEventListener("change", () => set(Number(range.value)));
      number.addEventListener("change", () => set(Math.min(10, Math.max(-10, Number(number.value) || 0))));
      shown(value);
      return [range, number];
    }

    function row(one) {
      const found = entry(one.sha256), name = found?.name || one.name || one.sha256.slice(0, 8), on = one.on !== false;
      const use = h("button.switch", { type: "button", role: "switch", "aria-checked": String(on), "aria-label": t("lora_on", { name }), onclick: () => change(one.sha256, { on: !on }) }, h("i"));
      const together = new Set(PARTS.map((part) => one[part])).size === 1;
      const apart = h("details.apart", { open: !together }, h("summary", {}, t("lora_apart")),
        PARTS.map((part) => h("div.strength", {}, h("span", {}, t(`lora_${part}`)), strength(`${name}, ${t(`lora_${part}`)}`, one[part], (value) => change(one.sha256, { [part]: value })))));
      const words = (found?.triggers || []).filter(Boolean);
      const tower = found?.status === "ask"
        ? h("select", { "aria-label": t("lora_ask"), onchange: (event) => change(one.sha256, { tower: event.target.value || null }) },
            h("option", { value: "" }, t("lora_ask")), ["both", ...PARTS].map((part) => h("option", { value: part, selected: one.tower === part }, t(`lora_${part}`))))
        : "";
      return h(`div.lora${on ? "" : ".off"}`, { "data-sha": one.sha256 },
        h("div.lorahead", {}, use, h("b", { title: name }, name), badge(found), button("close", t("lora_remove", { name }), () => put(chosen.filter((other) => other !== one)), { quiet: true })),
        together ? h("div.strength", {}, strength(t("lora_strength", { name }), one.high, (value) => change(one.sha256, { high: value, low: value, sound: value }))) : "",
        tower,
        words.length ? h("div.triggers", {}, words.map((word) => h("button.trigger", { type: "button", title: t("lora_trigger", { word }), onclick: () => put_in(word) }, icon("plus"), word))) : "",
        apart);
    }

    function put_in(word) {
      const now = document.querySelector("#prompt textarea").value;
      if (!now.toLowerCase().includes(word.toLowerCase())) studio.setPrompt(now.trim() ? `${word}, ${now}` : word);
      document.querySelector("#prompt textarea").focus();
    }

    function report(one) {
      const dialog = h("dialog.report-of", { "aria-label": t("lora_report", { name: one.name }), onclose: () => dialog.remove() },
        h("h2", {}, one.name), h("p", {}, one.text || t(`lora_${one.status}`)),
        (one.warnings || []).map((line) => h("p.warn", {}, line)),
        [one.base_model, one.author, one.licence, one.description].filter(Boolean).map((line) => h("p", {}, line)),
        one.report?.length ? h("small", {}, t("lora_keys", { n: one.keys })) : "",
        one.report?.length ? h("pre.report", { tabindex: "0" }, one.report.join("\n")) : "",
        h("form", { method: "dialog" }, h("button.tool", {}, t("close"))));
      document.body.append(dialog);
      dialog.showModal();
    }

    // ---- the library

    function drawPick() {
      pick.hidden = !open;
      if (!open) { pick.replaceChildren(); return; }
      const list = h("div.lorafound");
      const fill = () => {
        const words = search.toLowerCase();
        const left = (known || []).filter((one) => !chosen.some((other) => other.sha256 === one.sha256) && `${one.name} ${one.triggers.join(" ")} ${one.base_model}`.toLowerCase().includes(words));
        if (left.length) list.setAttribute("role", "list"); else list.removeAttribute("role");
        list.replaceChildren(...left.slice(0, 100).map((one) => h("div.lorarow", { role: "listitem" },
          h("button.choose", { type: "button", disabled: one.status === "no", onclick: () => choose(one.sha256) }, h("b", {}, one.name), one.triggers.length ? h("small", {}, one.triggers.slice(0, 3).join(", ")) : ""), badge(one))));
        if (known && !known.length) list.replaceChildren(h("p.hint", {}, t("lora_none")));
        else if (known && !left.length) list.replaceChildren(h("p.hint", {}, t("nothing_found")));
      };
      const field = h("input", { type: "search", value: search, placeholder: t("lora_search"), "aria-label": t("lora_search"), oninput: (event) => { search = event.target.value; fill(); } });
      const tools = input.dataset.may ? h("div.cardfoot", {}, button("folder", t("lora_folder"), () => studio.act("open_folder", { which: "loras" })), h("span.spring"), button("plus", t("lora_bring"), () => input.click())) : "";
      pick.replaceChildren(h("label.search", {}, icon("search"), field), list, tools);
      fill();
    }

    function draw() {
      add.setAttribute("aria-expanded", String(open));
      add.replaceChildren(icon(open ? "close" : "plus"), h("span", {}, t(open ? "close" : "lora_add")));
      const focused = document.activeElement?.getAttribute?.("aria-label");
      const inside = rows.contains(document.activeElement);
      const unfolded = new Set([...rows.querySelectorAll(".lora")].filter((node) => node.querySelector("details")?.open).map((node) => node.dataset.sha));
      rows.replaceChildren(...chosen.map(row));
      for (const node of rows.children) if (unfolded.has(node.dataset.sha)) node.querySelector("details").open = true;
      // Redrawing must not take the focus away from the slider that was just moved.
      if (inside) [...rows.querySelectorAll("input, button")].find((node) => node.getAttribute("aria-label") === focused)?.focus();
      drawPick();
    }
    watch("value", () => {
      const next = taken();
      if (JSON.stringify(next) === JSON.stringify(chosen)) return;
      chosen = next;
      if (chosen.length && !known) load();
      draw();
    });
    draw();
    studio.whenConnected(load);
  });
})();

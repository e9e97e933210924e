// The first-run panel above the form, and what the page tells of the enhancer's set-up behind it.
(() => {
  const { t, h, icon, button, say, keep, fill, showTab } = studio;
  const LANGUAGES = [["auto", () => t("language_auto")], ["en", () => "English"], ["zh", () => "简体中文"]];

  studio.part("firstrun", (root, { server }) => {
    root.classList.add("first");
    root.hidden = true;
    const writer = h("p.hint.writer", { role: "status", hidden: true });
    let timer = 0, phase = "";

    async function ask(data = {}) {
      try {
        const answer = await server.first(data);
        if (answer.error) { say(answer.error, { bad: true }); return null; }
        return answer;
      } catch (error) { // the studio is being restarted; the bar at the top says so
        console.warn(error);
        return null;
      }
    }

    // ---- the panel

    function draw(answer) {
      root.hidden = !answer.show;
      if (answer.say) say(answer.say);
      if (!answer.show) { root.replaceChildren(); return; }
      if (!answer.machine) return;
      const language = h("select", { "aria-label": t("language"), onchange: () => speak(language.value) },
        LANGUAGES.map(([value, name]) => h("option", { value, selected: value === answer.language }, name())));
      const make = h("button.make", { type: "button", "data-do": "make", onclick: () => first(make) }, icon("play"), h("span", {}, t("first_make")));
      root.replaceChildren(h("section.welcome", { "aria-labelledby": "first-title" },
        h("div.firsthead", {}, h("div", {}, h("h2", { id: "first-title", tabindex: "-1" }, t("first_title")), h("p", {}, t("first_text"))),
          h("label.speaks", {}, h("span", {}, t("language")), language)),
        h("div.firstfacts", {},
          h("div", {}, h("h3", {}, t("first_machine")), h("ul", { "data-facts": "machine" }, answer.machine.map((line) => h("li", {}, line))), answer.advice ? h("p.warn", {}, answer.advice) : null),
          h("div", {}, h("h3", {}, t("first_models")), h("dl", { "data-facts": "models" },
            h("dt", {}, icon("check"), t("first_demo")), h("dd", {}, t("first_demo_text")),
            answer.models.flatMap((one) => [h("dt", { "data-model": one.name, "data-verdict": one.verdict }, icon(one.good ? "check" : "clock"), one.name), h("dd", {}, one.text)]))),
          h("div", {}, h("h3", {}, t("first_places")), h("dl", { "data-facts": "places" },
            h("dt", {}, t("first_results")), h("dd.path", {}, answer.results), h("dt", {}, t("first_folder")), h("dd.path", {}, answer.folder)))),
        writer,
        h("div.firsttools", {}, make, button("drop", t("first_to_models"), () => showTab("models"), { "data-do": "models" }), h("span.spring"),
          button(null, t("first_skip"), async () => { const done = await ask({ do: "dismiss" }); if (done) draw(done); }, { "data-do": "dismiss" }))));
    }

    async function speak(language) {
      if (!(await ask({ do: "language", language }))) return;
      keep("language", language);
      location.reload();
    }

    async function first(make) {
      make.disabled = true;
      const answer = await ask({ do: "make" });
      make.disabled = false;
      if (!answer) return;
      draw(answer);
      fill({ from: "example", name: answer.example });
      studio.submitted?.();
      studio.poll();
    }

    /** Shows the panel again, from Settings. */
    studio.showFirst = async () => {
      const answer = await ask({ do: "open" });
      if (!answer) return;
      draw(answer);
      tell(answer);
      showTab("create");
      arrive();
    };
    /** The tab comes a moment after it was asked for. */
    function arrive(tries = 120) {
      const title = document.getElementById("first-title");
      if (title?.offsetParent) { scrollTo({ top: 0 }); title.focus(); }
      else if (tries) requestAnimationFrame(() => arrive(tries - 1));
    }

    // ---- the enhancer's set-up

    function tell(answer) {
      writer.textContent = answer.writer || "";
      writer.hidden = !answer.writer;
      studio.writerWords = answer.writer || "";
      document.dispatchEvent(new Event("studio:writer"));
      const changed = phase && phase !== answer.phase;
      phase = answer.phase;
      if (changed) document.dispatchEvent(new Event("studio:writer-changed"));
      if (changed && phase === "done") say(t("writer_done"));
      clearTimeout(timer);
      if (answer.moving) timer = setTimeout(follow, 3000);
    }
    async function follow() {
      const answer = document.hidden ? null : await ask({ do: "writer" });
      if (answer) tell(answer); else timer = setTimeout(follow, 6000);
    }

    studio.whenConnected(async () => {
      const answer = await ask();
      if (!answer) return;
      draw(answer);
      if (answer.phase) tell(answer);
    });
  });

  studio.part("firstagain", (root) => { root.append(button("eye", t("first_again"), () => studio.showFirst(), { "data-do": "first" })); });
})();

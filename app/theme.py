"""The look: one theme for dark and light, and the early head that keeps the page from flashing while it loads.

Colours live in `assets/studio/tokens.css` as custom properties. Gradio's own variables only point at them, with the
same value for its light and its dark mode, so switching `data-theme` on the root element changes everything at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "studio"
STYLES = ("tokens.css", "gradio.css", "studio.css", "stage.css", "words.css", "models.css", "first.css", "train.css")
SCRIPTS = (
    *("base.js", "picture.js", "form.js", "enhance.js", "loras.js"),
    *("player.js", "stage.js", "queue.js", "library.js", "models.js", "panels.js", "first.js", "token.js"),
    "train.js",
)

# Gradio variable -> value. Names that have a "_dark" twin get the same value there.
_VALUES: dict[str, str] = {
    "body_background_fill": "var(--bg)",
    "body_text_color": "var(--text)",
    "body_text_color_subdued": "var(--muted)",
    "body_text_size": "14px",
    "background_fill_primary": "var(--surface)",
    "background_fill_secondary": "var(--bg)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "border_color_accent_subdued": "var(--accent-line)",
    "color_accent": "var(--accent)",
    "color_accent_soft": "var(--accent-soft)",
    "link_text_color": "var(--accent-text)",
    "link_text_color_hover": "var(--accent-text)",
    "link_text_color_active": "var(--accent-text)",
    "link_text_color_visited": "var(--accent-text)",
    "code_background_fill": "var(--raised)",
    "shadow_drop": "none",
    "shadow_drop_lg": "none",
    "shadow_inset": "none",
    "block_background_fill": "transparent",
    "block_border_width": "0px",
    "block_border_color": "var(--line)",
    "block_info_text_color": "var(--muted)",
    "block_info_text_size": "12.5px",
    "block_label_background_fill": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "var(--muted)",
    "block_title_text_color": "var(--text)",
    "block_title_text_size": "13px",
    "block_title_text_weight": "550",
    "block_title_background_fill": "transparent",
    "block_title_border_width": "0px",
    "block_title_padding": "0",
    "block_padding": "0",
    "block_radius": "var(--radius)",
    "block_shadow": "none",
    "container_radius": "var(--radius)",
    "form_gap_width": "0px",
    "layout_gap": "18px",
    "panel_background_fill": "transparent",
    "panel_border_width": "0px",
    "checkbox_background_color": "var(--raised)",
    "checkbox_background_color_focus": "var(--raised)",
    "checkbox_background_color_hover": "var(--raised)",
    "checkbox_background_color_selected": "var(--accent)",
    "checkbox_border_color": "var(--line-strong)",
    "checkbox_border_color_focus": "var(--accent)",
    "checkbox_border_color_hover": "var(--accent)",
    "checkbox_border_color_selected": "var(--accent)",
    "checkbox_label_background_fill": "var(--surface)",
    "checkbox_label_background_fill_hover": "var(--raised)",
    "checkbox_label_background_fill_selected": "var(--accent-soft)",
    "checkbox_label_border_color": "var(--line)",
    "checkbox_label_border_color_hover": "var(--line-strong)",
    "checkbox_label_border_color_selected": "var(--accent-line)",
    "checkbox_label_border_width": "1px",
    "checkbox_label_padding": "7px 12px",
    "checkbox_label_shadow": "none",
    "checkbox_label_text_color": "var(--text)",
    "checkbox_label_text_color_selected": "var(--text)",
    "checkbox_label_text_weight": "500",
    "error_background_fill": "var(--raised)",
    "error_border_color": "var(--bad)",
    "error_text_color": "var(--text)",
    "error_icon_color": "var(--bad)",
    "input_background_fill": "var(--surface)",
    "input_background_fill_focus": "var(--surface)",
    "input_background_fill_hover": "var(--surface)",
    "input_border_color": "var(--line)",
    "input_border_color_focus": "var(--accent)",
    "input_border_color_hover": "var(--line-strong)",
    "input_border_width": "1px",
    "input_padding": "10px 12px",
    "input_placeholder_color": "var(--faint)",
    "input_radius": "var(--radius-small)",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 3px var(--accent-ring)",
    "input_text_size": "14px",
    "loader_color": "var(--accent)",
    "slider_color": "var(--accent)",
    "button_border_width": "1px",
    "button_transition": "background-color 120ms ease, border-color 120ms ease",
    "button_large_padding": "11px 18px",
    "button_large_radius": "var(--radius-small)",
    "button_large_text_size": "15px",
    "button_large_text_weight": "600",
    "button_medium_padding": "8px 14px",
    "button_medium_radius": "var(--radius-small)",
    "button_medium_text_size": "14px",
    "button_medium_text_weight": "500",
    "button_small_padding": "6px 11px",
    "button_small_radius": "var(--radius-small)",
    "button_small_text_size": "13px",
    "button_small_text_weight": "500",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent-hover)",
    "button_primary_border_color": "transparent",
    "button_primary_border_color_hover": "transparent",
    "button_primary_text_color": "var(--on-accent)",
    "button_primary_text_color_hover": "var(--on-accent)",
    "button_primary_shadow": "none",
    "button_primary_shadow_hover": "none",
    "button_primary_shadow_active": "none",
    "button_secondary_background_fill": "var(--raised)",
    "button_secondary_background_fill_hover": "var(--raised-hover)",
    "button_secondary_border_color": "var(--line)",
    "button_secondary_border_color_hover": "var(--line-strong)",
    "button_secondary_text_color": "var(--text)",
    "button_secondary_text_color_hover": "var(--text)",
    "button_secondary_shadow": "none",
    "button_secondary_shadow_hover": "none",
    "button_secondary_shadow_active": "none",
}


def theme() -> gr.themes.Base:
    """Gradio's theme; every colour is one of our custom properties. No font is fetched from anywhere."""
    system = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans SC", "PingFang SC", "Microsoft YaHei"]
    base = gr.themes.Base(font=[*system, "sans-serif"], font_mono=["ui-monospace", "Consolas", "Menlo", "monospace"])
    names = set(vars(base)) | {name for name in dir(base) if not name.startswith("_")}
    settable: dict[str, Any] = dict(_VALUES)
    settable |= {f"{name}_dark": value for name, value in _VALUES.items() if f"{name}_dark" in names}
    return base.set(**settable)


def styles() -> str:
    """All style sheets as one text."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in STYLES)


def early_head(words: dict[str, dict[str, str]], language: str, theme_choice: str) -> str:
    """What must stand in the page before Gradio's own scripts run: theme, language, styles, scripts, icons.

    Gradio adds its `head` text only after the page has started, too late for the choice of language and for the first
    paint. `app.studio` therefore writes this text into the page itself.

    Args:
        words: language -> word key -> text, as the page's scripts use it.
        language: "auto", "en" or "zh"; a visitor's own choice, kept in the browser, comes first.
        theme_choice: "dark", "light" or "system"; likewise.
    """
    defaults = json.dumps({"language": language, "theme": theme_choice, "words": words}, ensure_ascii=False)
    scripts = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    boot = (ASSETS / "boot.js").read_text(encoding="utf-8")
    icon = "studio/icon.svg"
    return "".join(
        [
            f'<link rel="icon" type="image/svg+xml" href="/{icon}">',
            "<style>",
            (ASSETS / "tokens.css").read_text(encoding="utf-8"),
            (ASSETS / "boot.css").read_text(encoding="utf-8"),
            (ASSETS / "outside.css").read_text(encoding="utf-8"),
            "</style><script>",
            f"window.studioDefaults = {_script_safe(defaults)};",
            boot,
            "</script><script>",
            scripts,
            "</script>",
        ]
    )


def icons() -> str:
    """The icon sprite; its symbols are used by ``<use href="#i-NAME">``."""
    return (ASSETS / "icons.svg").read_text(encoding="utf-8")


def _script_safe(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c")

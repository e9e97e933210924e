"""All words of the page, in English and Simplified Chinese.

One table: key -> (English, Chinese), put together from a file for each subject. Gradio's labels take them through
`gr.I18n`, the page's scripts through `table`, answers from Python through `say` with the visitor's language. {name}
parts are filled in.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.first_words import FIRST_WORDS
from app.form_words import FORM_WORDS
from app.model_words import MODEL_WORDS
from app.stage_words import STAGE_WORDS
from app.training_words import TRAINING_WORDS

LANGUAGES = ("en", "zh")
COOKIE = "studio_language"  # set by the page's first script
PRODUCT = "MOVA Studio"

WORDS: dict[str, tuple[str, str]] = {
    # tabs
    "create": ("Create", "创作"),
    "library": ("Library", "作品库"),
    "models": ("Models", "模型"),
    "settings": ("Settings", "设置"),
    "log": ("Log", "日志"),
    # top bar, notices
    "close": ("Close", "关闭"),
    "switch_theme": ("Switch between dark and light", "切换深色与浅色外观"),
    "lost": (
        "The studio does not answer. This page tries again by itself; nothing is lost.",
        "暂时无法连接工作室。页面会自动重试，不会丢失任何内容。",
    ),
    "no_answer": ("The studio did not answer; try again.", "工作室没有响应，请重试。"),
    "worker_off": ("asleep", "休眠"),
    "worker_starting": ("starting", "启动中"),
    "worker_idle": ("ready", "就绪"),
    "worker_busy": ("at work", "生成中"),
    "worker_title": ("on {device}, {memory} GB of memory", "运行于 {device}，内存 {memory} GB"),
    "shared_owner": (
        "This studio is shared. Guests need the password; it shuts to them at {time}.",
        "此工作室已共享。访客需输入密码，将于 {time} 停止访客访问。",
    ),
    "shared_over": ("The sharing is over: guests are shut out.", "共享已结束，访客无法再访问。"),
    "shared_password": ("Password: {password}", "密码：{password}"),
    "shared_guest": (
        "You are a guest: you see your own clips, and may have {n} unfinished at a time.",
        "你是访客：只能看到自己的视频，最多可同时有 {n} 个未完成的任务。",
    ),
    "drop_title": ("Drop it anywhere", "拖放到页面任意位置"),
    "drop_text": (
        "A clip of the studio restores its settings. A picture becomes the first frame. A LoRA joins the library.",
        "拖入由工作室生成的视频可恢复其设置，拖入图片会用作首帧，拖入 LoRA 会加入库中。",
    ),
    "copied": ("Copied.", "已复制。"),
    "copy": ("Copy", "复制"),
    # shortcuts
    "shortcuts": ("Keyboard shortcuts", "键盘快捷键"),
    "key_generate": ("generate", "生成"),
    "key_play": ("play or pause", "播放或暂停"),
    "key_frame": ("one frame back or on", "前进或后退一帧"),
    "key_second": ("one second back or on", "前进或后退一秒"),
    "key_prompt": ("go to the prompt", "跳到提示词"),
    "key_tabs": ("Create, Library, Train, Models, Settings, Log", "创作、作品库、训练、模型、设置、日志"),
    "key_help": ("this list", "显示此列表"),
    **FORM_WORDS,
    **STAGE_WORDS,
    **MODEL_WORDS,
    **FIRST_WORDS,
    **TRAINING_WORDS,
}


def labels() -> gr.I18n:
    """For Gradio's labels: ``L = labels(); gr.Textbox(label=L("prompt"))``; follows the page's language."""
    return gr.I18n(**{"en": table("en"), "zh-CN": table("zh")})


def table(language: str) -> dict[str, str]:
    """Key -> text in one language."""
    column = LANGUAGES.index(language)
    return {key: texts[column] for key, texts in WORDS.items()}


def say(language: str, key: str, **parts: Any) -> str:
    """A text in a visitor's language, with its parts filled in."""
    return WORDS[key][LANGUAGES.index(language)].format(**parts)


def language_of(request: Any) -> str:
    """The language that the visitor's page is in, from its cookie; English where it says nothing we know."""
    wanted = request.cookies.get(COOKIE, "en")
    return wanted if wanted in LANGUAGES else "en"

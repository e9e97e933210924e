"""Words of the first-run panel, the enhancer's set-up and the token field, in English and Simplified Chinese."""

from __future__ import annotations

FIRST_WORDS: dict[str, tuple[str, str]] = {
    "first_title": ("Welcome to the studio", "欢迎来到工作室"),
    "first_text": (
        "Everything happens on this machine. A small model is built in, so your first clip can be made right now.",
        "一切都在这台电脑上运行。工作室内置一个小模型，现在就能生成第一个视频。",
    ),
    "first_machine": ("This machine", "这台电脑"),
    "first_card": ("{name}, {size}", "{name}，{size}"),
    "first_cardless": ("No graphics card for computing", "没有可用于计算的显卡"),
    "first_memory": ("{size} of memory, {cores} cores", "内存 {size}，{cores} 核"),
    "first_disk": ("{free} free for clips", "可用于保存视频的空间 {free}"),
    "first_models": ("Models", "模型"),
    "first_demo": ("Built in", "内置"),
    "first_demo_text": (
        "Works right now, offline: two seconds of a small drawn world.",
        "现在就能离线使用：一个手绘小世界里的两秒视频。",
    ),
    "first_here": ("is here; Settings switches to it", "已就绪，可在设置中切换"),
    "first_fits": (
        "fits: clips up to {seconds} s. {size} to download, {free} free",
        "适用：最长 {seconds} 秒。需下载 {size}，剩余空间 {free}",
    ),
    "first_short": (
        "fits: clips up to {seconds} s on this card. {size} to download, {free} free",
        "适用：在此显卡上最长 {seconds} 秒。需下载 {size}，剩余空间 {free}",
    ),
    "first_no_disk": (
        "would run here, but needs {size} of disk and 2 GB to spare; {free} are free",
        "可以运行，但需要 {size} 磁盘空间并另留 2 GB；目前仅剩 {free}",
    ),
    "first_no_memory": (
        "needs 16 GB of main memory ({size} of disk)",
        "需要 16 GB 内存（磁盘空间 {size}）",
    ),
    "first_no_card": (
        "needs a graphics card: NVIDIA from 6 GB ({size} of disk)",
        "需要显卡：NVIDIA，6 GB 显存起（磁盘空间 {size}）",
    ),
    "first_small_card": (
        "needs a graphics card with more memory ({size} of disk)",
        "需要显存更大的显卡（磁盘空间 {size}）",
    ),
    "first_unknown": (
        "may fit: try it. {size} to download, {free} free",
        "可能适用，不妨一试。需下载 {size}，剩余空间 {free}",
    ),
    "first_places": ("Where things lie", "保存位置"),
    "first_results": ("Clips", "视频"),
    "first_folder": ("Models", "模型"),
    "first_to_models": ("Models and downloads", "模型与下载"),
    "first_make": ("Make the first clip", "生成第一个视频"),
    "first_skip": ("Not now", "以后再说"),
    "first_back": ("Settings shows the first steps again.", "可在“设置”中再次查看入门说明。"),
    "first_again": ("Show the first steps again", "再次显示入门说明"),
    # the token of the hub
    "section_downloads": ("Downloads", "下载"),
    "token": ("Hugging Face token", "Hugging Face 访问令牌"),
    "token_info": (
        "Only for models that ask who you are; those of the list do not. It is never shown again.",
        "仅用于需要身份验证的模型，列表中的模型都不需要。保存后不再显示。",
    ),
    "token_save": ("Keep", "保存"),
    "token_clear": ("Forget it", "清除"),
    "token_none": ("none is kept", "尚未保存"),
    "token_keyring": ("kept in the system's keyring", "已保存在系统钥匙串中"),
    "token_file": ("kept in a file that only you can read", "已保存在只有你能读取的文件中"),
    "token_environment": ("the one in HF_TOKEN is used", "正在使用 HF_TOKEN 中的令牌"),
    "token_gone": ("The token is forgotten.", "令牌已清除。"),
    # the enhancer's language model, which is built after the first start
    "writer_setup": ("Language model", "语言模型"),
    "writer_waiting": (
        "The enhancer's language model will be built in a moment; rules write until then.",
        "润色用的语言模型即将开始构建，在此之前使用内置规则。",
    ),
    "writer_building": (
        "The enhancer's language model is being built in the background ({seconds} s so far); rules write until then.",
        "正在后台构建润色用的语言模型（已用 {seconds} 秒），在此之前使用内置规则。",
    ),
    "writer_done": ("The enhancer's language model is ready.", "润色用的语言模型已就绪。"),
    "writer_failed": (
        "The enhancer's language model could not be built; rules write instead. The doctor says what is missing.",
        "润色用的语言模型构建失败，改用内置规则。“诊断”会说明缺少什么。",
    ),
    # the same in short, under the enhancer's switch
    "rules_until": (
        "Rules write for now; the language model is being built.",
        "目前使用内置规则；语言模型正在后台构建。",
    ),
    "rules_failed": (
        "Rules write: the language model could not be built. It needs a C++ compiler (Debian, Ubuntu: apt install g++; "
        "Windows: Visual Studio Build Tools; macOS: xcode-select --install), then: python launch.py setup",
        "目前使用内置规则：语言模型构建失败。请先安装 C++ 编译器（Debian、Ubuntu：apt install g++；Windows："
        "Visual Studio Build Tools；macOS：xcode-select --install），再运行 python launch.py setup",
    ),
    "rules_offline": (
        "Rules write: the language model is built once the network may be used.",
        "目前使用内置规则；联网后会构建语言模型。",
    ),
    "rules_absent": (
        "Rules write: llama-cpp-python is not installed here.",
        "目前使用内置规则：此环境未安装 llama-cpp-python。",
    ),
    "writer_offline": (
        "The enhancer's language model is not built while the network is switched off; rules write instead.",
        "网络已关闭，暂不构建润色用的语言模型，改用内置规则。",
    ),
}

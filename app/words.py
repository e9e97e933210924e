"""All words of the page, in English and Simplified Chinese.

One table: key -> (English, Chinese). Gradio's labels take them through `gr.I18n`, the page's scripts through
`table`, answers from Python through `say` with the visitor's language. {name} parts are filled in.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

LANGUAGES = ("en", "zh")
COOKIE = "studio_language"  # set by the page's first script
PRODUCT = "MOVA Studio"

WORDS: dict[str, tuple[str, str]] = {
    # tabs
    "create": ("Create", "创作"),
    "library": ("Library", "作品库"),
    "settings": ("Settings", "设置"),
    "log": ("Log", "日志"),
    # pictures
    "first_picture": ("First picture", "首帧图片"),
    "last_picture": ("Last picture", "尾帧图片"),
    "picture_hint": ("drop, paste or choose; optional", "拖入、粘贴或选择，可不填"),
    "last_picture_hint": ("where the clip should end; optional", "片段结束时的画面，可不填"),
    "replace_picture": ("Choose another picture", "换一张图片"),
    "remove_picture": ("Remove the picture", "移除图片"),
    "crop_label": ("What the model sees; arrow keys move it", "模型看到的部分；方向键移动"),
    "crop_at": ("{x} % from the left, {y} % from the top", "距左 {x}%，距上 {y}%"),
    "crop_whole": ("the whole picture", "整张图片"),
    "upload_failed": ("The file could not be brought in; try again.", "文件没有传进来，请再试一次。"),
    # the form
    "prompt": ("What is seen and heard", "看到什么，听到什么"),
    "prompt_hint": (
        'A red ball bounces on the floor with a dull thump. Speech goes in quotes: "Hello there."',
        "一只红球在地板上弹跳，发出沉闷的响声。说的话放在引号里：“你好。”",
    ),
    "preset": ("Quality", "质量"),
    "draft": ("Draft", "草稿"),
    "standard": ("Standard", "标准"),
    "best": ("Best", "最佳"),
    "seconds": ("Length, s", "时长，秒"),
    "size": ("Size, px", "尺寸，像素"),
    "size_auto": ("auto", "自动"),
    "seed": ("seed", "种子"),
    "seed_label": ("Seed", "种子"),
    "seed_random": ("random", "随机"),
    "seed_last": ("Last seed", "上次种子"),
    "variations": ("Clips", "数量"),
    "more": ("More", "更多"),
    "negative": ("What to avoid", "不要出现的内容"),
    "negative_info": (
        "Empty: nothing in particular. The model's own text is there by default.",
        "留空表示不限制。默认填有模型自带的文字。",
    ),
    "steps": ("Steps", "步数"),
    "steps_info": ("More steps give cleaner detail and take longer.", "步数越多，细节越干净，耗时越长。"),
    "guidance": ("Follow the prompt", "贴合提示词"),
    "guidance_info": (
        "How strictly the words are followed. 1 is freest and twice as fast; too high looks harsh.",
        "对文字的遵循程度。1 最自由且快一倍；过高画面会生硬。",
    ),
    "bridge": ("Tie picture and sound", "画面与声音的配合"),
    "bridge_info": (
        "Dual guidance: above 1 the two listen to each other more. Costs one more pass a step.",
        "双重引导：大于 1 时两者更加呼应，每步多算一次。",
    ),
    "video_shift": ("Picture shift", "画面偏移"),
    "video_shift_info": (
        "Higher spends more steps on motion and composition, lower on detail.",
        "越高越多步数用于运动与构图，越低越多用于细节。",
    ),
    "audio_shift": ("Sound shift", "声音偏移"),
    "audio_shift_info": (
        "Higher spends more steps on rhythm and timing, lower on timbre.",
        "越高越多步数用于节奏与时机，越低越多用于音色。",
    ),
    "v2a": ("Picture to sound", "画面影响声音"),
    "v2a_info": (
        "How strongly the sound hears the picture. 1 is as trained.",
        "声音受画面影响的强度，1 为训练时的值。",
    ),
    "a2v": ("Sound to picture", "声音影响画面"),
    "a2v_info": (
        "How strongly the picture follows the sound. 1 is as trained.",
        "画面受声音影响的强度，1 为训练时的值。",
    ),
    "preset_name": ("Name of your preset", "预设名称"),
    "preset_save": ("Save as preset", "存为预设"),
    "preset_delete": ("Delete preset", "删除预设"),
    "preset_saved": ("Preset “{name}” is saved.", "已保存预设“{name}”。"),
    "preset_deleted": ("Preset “{name}” is deleted.", "已删除预设“{name}”。"),
    "preset_built_in": (
        "Draft, Standard and Best stay; choose one of your own to delete.",
        "内置预设不能删除，请选择自己的预设。",
    ),
    "preset_unnamed": ("Give the preset a name first.", "请先给预设起个名字。"),
    "generate": ("Generate", "生成"),
    "generate_title": ("Ctrl + Enter", "Ctrl + Enter"),
    "save_changes": ("Save changes", "保存修改"),
    "editing": ("You are changing a waiting clip.", "正在修改一个排队中的片段。"),
    "stop_editing": ("Leave it as it was", "放弃修改"),
    "edited": ("The waiting clip is changed.", "排队中的片段已修改。"),
    "queued_one": ("In the queue.", "已加入队列。"),
    "queued_many": ("{n} clips are in the queue.", "{n} 个片段已加入队列。"),
    "filled": ("The form has these settings now.", "表单已填入这些设置。"),
    "no_seed": ("There is no clip yet whose seed could be used.", "还没有可以沿用种子的片段。"),
    # what it takes
    "cost_wait": ("…", "…"),
    "cost_time": ("{time}", "{time}"),
    "cost_about": ("about {time}", "约 {time}"),
    "cost_unknown": ("time is known after the first clip", "生成第一个片段后才知道时间"),
    "cost_load": ("and {time} to load the model", "加载模型另需 {time}"),
    "cost_memory": ("{gigabytes} GB of memory", "内存 {gigabytes} GB"),
    "times": ("{n} clips", "{n} 个"),
    # stage
    "clip": ("Clip", "片段"),
    "welcome": ("Your clip appears here", "片段会出现在这里"),
    "welcome_text": (
        "Write what is seen and heard, add a picture if you like, and press Generate.",
        "写下看到和听到的内容，可以加一张图片，然后点击生成。",
    ),
    "examples": ("Start from an example", "从示例开始"),
    "preview": ("The picture so far", "目前的画面"),
    "progress": ("Progress", "进度"),
    "eta": ("{time} left", "还需 {time}"),
    "cancel": ("Cancel", "取消"),
    "stage_loading": ("Loading the model", "加载模型"),
    "stage_text": ("Reading the prompt", "读取提示词"),
    "stage_picture": ("Reading the picture", "读取图片"),
    "stage_denoise": ("Step {step} of {steps}", "第 {step} 步，共 {steps} 步"),
    "stage_decode": ("Decoding", "解码"),
    "stage_write": ("Writing the clip", "写入片段"),
    "stage_stopping": ("Stopping", "正在停止"),
    "state_queued": ("Waiting", "等待中"),
    "state_paused": ("Paused", "已暂停"),
    "state_failed": ("Failed", "失败"),
    "state_done": ("Done", "完成"),
    "state_cancelled": ("Cancelled", "已取消"),
    "state_running": ("Running", "进行中"),
    "play": ("Play", "播放"),
    "pause": ("Pause", "暂停"),
    "loop": ("Repeat", "循环"),
    "mute": ("Mute", "静音"),
    "full_screen": ("Full screen", "全屏"),
    "position": ("Position in the clip", "播放位置"),
    "position_text": ("{at} of {total} seconds", "{at} 秒，共 {total} 秒"),
    "checks": ("Checks of this clip", "片段检查"),
    "no_sound": ("no sound", "没有声音"),
    "silent": ("silent", "无声"),
    "av_badge": ("A/V {ms} ms", "音画 {ms} 毫秒"),
    "av_help": (
        "How far the lengths of picture and sound lie apart; up to one frame is right.",
        "画面与声音长度之差，一帧以内为正常。",
    ),
    "loudness_help": (
        "Loudness (EBU R128); the highest peak is {peak} dBTP.",
        "响度（EBU R128），最高峰值 {peak} dBTP。",
    ),
    "clips_badge": ("clipping {n}×", "削波 {n} 处"),
    "clips_help": (
        "Places where the sound touches full scale; marked red above the waveform.",
        "声音触及满刻度的位置，波形上方以红色标出。",
    ),
    "fps": ("frames/s", "帧/秒"),
    "steps_unit": ("steps", "步"),
    "actions": ("What to do with this clip", "对这个片段的操作"),
    "trim": ("Trim", "裁剪"),
    "trim_start": ("Start of the cut", "起点"),
    "trim_end": ("End of the cut", "终点"),
    "export": ("Export", "导出"),
    "export_mp4": ("Video", "视频"),
    "export_webm": ("Video for the web", "网页视频"),
    "export_gif": ("Animation without sound", "无声动画"),
    "export_wav": ("Sound only", "仅声音"),
    "export_png": ("This frame as a picture", "当前画面"),
    "exporting": ("Preparing the {kind} file…", "正在准备 {kind} 文件……"),
    "export_failed": ("The file could not be made.", "文件没有生成。"),
    "again": ("Again", "再来"),
    "again_same": ("Same seed", "相同种子"),
    "again_new": ("New seed", "新的种子"),
    "sound_again": ("New sound for this picture", "为此画面重做声音"),
    "sound_again_help": ("the picture stays as it is", "画面保持不变"),
    "picture_again": ("New picture for this sound", "为此声音重做画面"),
    "picture_again_help": ("the sound stays as it is", "声音保持不变"),
    "extend": ("Extend", "延长"),
    "extend_same": ("With the same words", "沿用原来的文字"),
    "extend_form": ("With the words in the form", "使用表单里的文字"),
    "extend_form_help": ("what happens next", "接下来发生什么"),
    "use": ("Use", "使用"),
    "use_settings": ("Use its settings", "使用它的设置"),
    "use_seed": ("Use its seed", "使用它的种子"),
    "use_last_frame": ("Last frame as first picture", "末帧作为首帧图片"),
    "favourite": ("Favourite", "收藏"),
    "delete": ("Delete", "删除"),
    "deleted": ("The clip is in the trash.", "片段已移入回收站。"),
    "undo": ("Undo", "撤销"),
    "back": ("The clip is back.", "片段已恢复。"),
    "clip_done": ("Another clip is done.", "又完成了一个片段。"),
    "show": ("Show", "查看"),
    "done_title": ("Your clip is done", "片段已完成"),
    # queue
    "queue": ("Queue", "队列"),
    "last_results": ("Last results", "最近作品"),
    "waiting_count": ("{n} waiting", "{n} 个等待"),
    "more_waiting": ("({n} not shown)", "（另有 {n} 个未显示）"),
    "turn": ("number {n}", "第 {n} 位"),
    "watch": ("Watch", "观看"),
    "queue_pause": ("Pause queue", "暂停队列"),
    "queue_go_on": ("Go on", "继续队列"),
    "cancel_waiting": ("Cancel all waiting", "取消全部等待"),
    "move_up": ("Move up", "上移"),
    "move_down": ("Move down", "下移"),
    "go_on": ("Go on", "继续"),
    "edit": ("Edit", "修改"),
    "duplicate": ("Duplicate", "复制一份"),
    "try_again": ("Try again", "重试"),
    "dismiss": ("Dismiss", "移除"),
    # library
    "search": ("Search", "搜索"),
    "search_hint": ("Search in prompts", "搜索提示词"),
    "favourites": ("Favourites", "收藏"),
    "compare": ("Compare", "对比"),
    "pick": ("Choose for comparing", "选来对比"),
    "open_folder": ("Open folder", "打开文件夹"),
    "show_more": ("Show more", "显示更多"),
    "one_clip": ("1 clip", "1 个片段"),
    "clip_count": ("{n} clips", "{n} 个片段"),
    "library_empty": ("No clips yet", "还没有片段"),
    "library_empty_text": (
        "What you make is kept here with all of its settings.",
        "你做的片段会连同全部设置保存在这里。",
    ),
    "nothing_found": ("Nothing found", "没有找到"),
    "open_clip": ("Open: {title}", "打开：{title}"),
    "hear_other": ("Hear the other one", "听另一个"),
    "one_playhead": ("One playhead moves both.", "同一个播放头控制两边。"),
    # top bar, notices
    "close": ("Close", "关闭"),
    "switch_theme": ("Switch between dark and light", "切换深色与浅色"),
    "lost": (
        "The studio does not answer. This page tries again by itself; nothing is lost.",
        "暂时连不上工作室。页面会自动重试，不会丢失任何内容。",
    ),
    "no_answer": ("The studio did not answer; try again.", "工作室没有回应，请再试一次。"),
    "worker_off": ("asleep", "休眠"),
    "worker_starting": ("starting", "启动中"),
    "worker_idle": ("ready", "就绪"),
    "worker_busy": ("at work", "工作中"),
    "worker_title": ("on {device}, {memory} GB of memory", "运行于 {device}，内存 {memory} GB"),
    "shared_owner": (
        "This studio is shared. Guests need the password; it shuts to them at {time}.",
        "此工作室已共享。访客需要密码，将于 {time} 对访客关闭。",
    ),
    "shared_over": ("The sharing is over: guests are shut out.", "共享已结束，访客无法再进入。"),
    "shared_password": ("Password: {password}", "密码：{password}"),
    "shared_guest": (
        "You are a guest: you see your own clips, and may have {n} unfinished at a time.",
        "你是访客：只能看到自己的片段，同时最多有 {n} 个未完成。",
    ),
    "drop_title": ("Drop it anywhere", "拖到任意位置"),
    "drop_text": (
        "A clip of the studio restores its settings. A picture becomes the first frame.",
        "工作室的片段会恢复其设置，图片会成为首帧。",
    ),
    "copied": ("Copied.", "已复制。"),
    "copy": ("Copy", "复制"),
    # shortcuts
    "shortcuts": ("Keyboard shortcuts", "键盘快捷键"),
    "key_generate": ("generate", "生成"),
    "key_play": ("play or pause", "播放或暂停"),
    "key_frame": ("one frame back or on", "前后一帧"),
    "key_second": ("one second back or on", "前后一秒"),
    "key_prompt": ("go to the prompt", "跳到提示词"),
    "key_tabs": ("Create, Library, Settings, Log", "创作、作品库、设置、日志"),
    "key_help": ("this list", "此列表"),
    # settings
    "model": ("Model", "模型"),
    "model_info": (
        "For new clips. A folder in the released MOVA layout can be given with --model.",
        "用于新片段。可用 --model 指定已发布 MOVA 格式的文件夹。",
    ),
    "free_memory": ("Free its memory now", "立即释放内存"),
    "memory_freed": (
        "The model's memory is free; the next clip loads it again.",
        "模型内存已释放，下个片段会重新加载。",
    ),
    "idle_minutes": ("Free the memory after, minutes", "多少分钟后释放内存"),
    "idle_info": (
        "Without work for that long, the model leaves memory. 0 keeps it there.",
        "空闲这么久后模型离开内存，0 表示一直保留。",
    ),
    "keep_latents": ("Keep latents with each clip", "保留每个片段的潜变量"),
    "keep_latents_info": (
        "New sound or picture then loses nothing; about 10 MB for 8 s.",
        "重做声音或画面时无损失，8 秒约 10 MB。",
    ),
    "language": ("Language", "语言"),
    "language_auto": ("as the browser", "跟随浏览器"),
    "theme": ("Look", "外观"),
    "dark": ("Dark", "深色"),
    "light": ("Light", "浅色"),
    "theme_auto": ("as the system", "跟随系统"),
    "notify": ("When a clip is done", "片段完成时"),
    "notify_off": ("say nothing", "不提示"),
    "notify_sound": ("play a soft sound", "播放轻柔提示音"),
    "notify_message": ("show a notification", "显示通知"),
    "guest_jobs": ("Unfinished clips a guest may have", "访客未完成片段上限"),
    "share_hours": ("Shut a shared page after, hours", "共享多少小时后关闭"),
    "upload_megabytes": ("Largest file to bring in, MB", "文件大小上限，MB"),
    "folder": ("Where clips are kept", "片段保存位置"),
    "saved": ("Saved.", "已保存。"),
    "owner_only": ("Only the owner of this studio can see this page.", "只有工作室主人可以查看此页。"),
    "section_model": ("Model and memory", "模型与内存"),
    "section_page": ("This page", "页面"),
    "section_sharing": ("Sharing", "共享"),
    "section_folders": ("Folders", "文件夹"),
    "doctor": ("Doctor", "体检"),
    "doctor_run": ("Look at this machine", "检查这台电脑"),
    "doctor_wait": ("Says what this machine can do and what to mend.", "说明这台电脑能做什么、需要修什么。"),
    "doctor_busy": ("Looking… this takes some seconds.", "检查中……需要几秒。"),
    "log_search": ("Find in the log", "在日志中查找"),
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

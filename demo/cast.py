"""What the rooms of the demo are called, and what is said in them."""

from __future__ import annotations

from typing import Final

ROOMS: Final = [
    ("小海", 1, "清晨海边，一起听浪 · Waves at dawn"),
    ("harbour", 1, "Sailing tonight: first wind after the storm"),
    ("陶土", 1, "手作陶艺 · 拉坯直播"),
    ("eighty-eight", 1, "Piano by request"),
    ("灶台", 1, "深夜食堂：番茄牛腩"),
    ("ridge", 1, "Walking the ridge before sunrise"),
    ("像素", 1, "像素画马拉松，画到天亮"),
    ("kettle", 1, "Tea, rain, and a good book"),
    ("红队", 2, "红蓝对抗：谁唱得更高"),
    ("blue corner", 2, "Blitz chess: best of nine"),
]
"""The anchor's nickname, the type, and the name; the first is the one in which people talk."""

VIEWERS: Final = [
    "云朵", "lemon", "青石板", "maple", "晚风", "pebble", "小鹿", "juniper", "橘猫", "driftwood", "北极星", "clover",
    "薄荷", "sundial", "豆浆", "lantern", "山茶", "cobalt", "栗子", "fern", "海盐", "marble", "落日", "thistle", "芒果",
    "willow", "白鹭", "ember", "竹影", "quartz",
]  # fmt: skip

LINES: Final = [
    "早上好！", "Good morning from the other side of the world", "今天的浪好大", "Where is this?", "声音开大一点",
    "这光线太美了", "First time here, hello everyone", "主播吃早饭了吗？", "That sky!", "好治愈",
    "可以看看那边的灯塔吗",
    "I could listen to this all day", "哈哈哈哈", "有海鸥！", "Is the water cold?", "刚起床，先来打卡", "so calm",
    "明天还播吗？", "Subscribed on the spot", "点赞点赞", "这里是北方还是南方呀", "What a way to start the day",
    "屏幕前的我已经闻到海风了", "Greetings from a very rainy place", "慢慢来，不着急", "wow", "这首歌叫什么名字",
    "The waves are louder than yesterday", "求个壁纸", "谢谢主播，今天也要加油",
]  # fmt: skip

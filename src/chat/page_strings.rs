//! The texts that stand around the parts of the page: headings, groups, buttons.

use crate::chat::words::{Word, text};

/// Link for the keyboard to the picture.
pub const TO_PICTURE: Word = || text("To the picture", "跳到图片");
/// Link for the keyboard to the text box.
pub const TO_QUESTION: Word = || text("To the question", "跳到问题");
/// The left half of the page.
pub const PICTURE: Word = || text("Picture", "图片");
/// The right half of the page.
pub const CONVERSATION: Word = || text("Conversation", "对话");
/// Heading of the panel about boxes.
pub const OBJECTS: Word = || text("Objects", "物体");
/// Title of the mark [`OFFLINE`].
pub const OFFLINE_NOTE: Word = || {
    text(
        "Everything needed is stored on this device",
        "所需的一切都已存储在本设备上",
    )
};
/// Mark of a page that works without a network.
pub const OFFLINE: Word = || text("Works offline", "可离线使用");
/// The conversation, for a screen reader.
pub const TRANSCRIPT: Word = || text("Questions and answers", "问题与回答");
/// Heading of an empty conversation.
pub const WELCOME: Word = || text("Ask about this picture", "就这张图片提问");
/// What can be asked.
pub const WELCOME_NOTE: Word = || {
    text(
        "Find or count things by name, have the picture described, or click a box and ask what it is. Words in the answer point back at the boxes they mean.",
        "可以按名称查找或计数物体，让模型描述图片，或者点一个框问它是什么。回答中的词会指回对应的框。内置模型只懂英文，也只用英文回答。",
    )
};
/// Before a question, for a screen reader.
pub const YOU: Word = || text("You: ", "你：");
/// Group of the switch between several answers.
pub const ANSWERS: Word = || text("Answers", "回答");
/// Button of that switch.
pub const ANSWER_BEFORE: Word = || text("The answer before", "上一个回答");
/// Button of that switch.
pub const ANSWER_AFTER: Word = || text("The answer after", "下一个回答");
/// Before the link [`ASK_AGAIN`].
pub const BOXES_CHANGED: Word = || {
    text(
        "The boxes changed after this answer. ",
        "这个回答之后框有变化。",
    )
};
/// Link that asks again with the present boxes.
pub const ASK_AGAIN: Word = || text("Ask again", "用新的框");
/// After that link.
pub const WITH_NEW_BOXES: Word = || text(" with the new ones.", "重新提问。");
/// Group of the granularities.
pub const GRANULARITY: Word = || text("What to look for", "找什么");
/// Coarse granularity.
pub const WHOLE_OBJECTS: Word = || text("Whole objects", "整个物体");
/// Fine granularity.
pub const PARTS_TOO: Word = || text("Parts too", "也找部件");
/// Row of the page's About: name of the model.
pub const MODEL: Word = || text("Model", "模型");
/// Row of the page's About: what the model knows.
pub const KNOWS: Word = || text("Knows", "所知");
/// Row of the page's About.
pub const TRAINED_ON: Word = || text("Trained on", "训练数据");
/// Row of the page's About.
pub const LICENCE: Word = || text("Licence", "许可证");
/// Row of the page's About.
pub const COMPUTES_ON: Word = || text("Computes on", "运算设备");
/// Row of the page's About: size of the weights.
pub const WEIGHTS: Word = || text("Weights", "权重");
/// In place of the rows of the page's About.
pub const NOT_LOADED: Word = || text("The model is not loaded yet.", "模型尚未加载。");
/// Button that opens the page's About.
pub const ABOUT: Word = || text("About", "关于");
/// Heading in the page's About.
pub const WHAT_ANSWERS: Word = || text("What answers here", "谁在回答");
/// Heading in the page's About.
pub const PRIVATE: Word = || text("Private", "隐私");
/// Label of the text box.
pub const YOUR_QUESTION: Word = || text("Your question", "你的问题");
/// The sample cards.
pub const SAMPLE_PICTURES: Word = || text("Sample pictures", "示例图片");
/// Slider of the temperature.
pub const TEMPERATURE: Word = || text("Temperature", "温度");
/// Slider of top-p.
pub const TOP_P: Word = || {
    text(
        "Among the most likely that make up",
        "只在累计概率达到此值的最可能词中选",
    )
};
/// Switch of constrained decoding.
pub const GRAMMAR: Word = || text("Name only boxes that there are", "只提及存在的框");
/// Button that asks for the name of the selection.
pub const NAME_IT: Word = || text("Name it", "命名");
/// Button that asks for a description of the selection.
pub const DESCRIBE_IT: Word = || text("Describe it", "描述");
/// Button that cites the selection in the draft.
pub const ASK_ABOUT_IT: Word = || text("Ask…", "提问…");
/// Button that chooses a file.
pub const OPEN_PICTURE: Word = || text("Open picture", "打开图片");
/// Name of the progress bar of the model.
pub const LOADING_MODEL: Word = || text("Loading the model", "正在加载模型");
/// Group of the visibilities.
pub const BOXES_SHOWN: Word = || text("Boxes shown", "显示哪些框");
/// All boxes are drawn.
pub const SHOW_ALL: Word = || text("All", "全部");
/// Boxes of the answer are drawn.
pub const SHOW_MENTIONED: Word = || text("Mentioned", "提到的");
/// Selected boxes are drawn.
pub const SHOW_SELECTED: Word = || text("Selected", "选中的");
/// No boxes are drawn.
pub const SHOW_NONE: Word = || text("None", "不显示");
/// Title of a conversation without questions and without a name.
pub const UNNAMED: Word = || text("Picture", "图片");
/// In place of the picture.
pub const NO_PICTURE: Word = || {
    text(
        "Drop a picture, paste one, or choose a file.",
        "拖入或粘贴一张图片，或者选择文件。",
    )
};

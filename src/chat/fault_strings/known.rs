//! Sentences of the engine, of the page and of its models in Chinese.

/// English texts with `{}` for values, and the Chinese ones, which name the values by their place.
pub(super) const KNOWN: &[(&str, &str)] = &[
    // Places.
    ("that file", "该文件"),
    ("that picture", "该图片"),
    ("that conversation", "该对话"),
    ("the file", "该文件"),
    ("the files", "这些文件"),
    ("the model's worker", "运行模型的线程"),
    ("this model", "此模型"),
    ("this browser", "此浏览器"),
    ("message to the engine", "发给引擎的消息"),
    ("model", "模型"),
    ("question", "问题"),
    ("the question", "问题"),
    ("picture {}", "图片 {0}"),
    // Pictures and files.
    ("the picture could not be fetched", "无法获取图片"),
    (
        "Drop a picture of your own, or reload the page",
        "请拖入自己的图片，或重新加载页面",
    ),
    (
        "it has {} million pixels; {} million is the most",
        "图片有 {0} 百万像素，上限是 {1} 百万像素",
    ),
    (
        "Make it smaller and try again; your current picture is unchanged",
        "请缩小后重试；当前图片未改变",
    ),
    (
        "it cannot be read; it may have been moved or changed",
        "无法读取，文件可能已被移动或修改",
    ),
    (
        "Choose it again; your current picture is unchanged",
        "请重新选择；当前图片未改变",
    ),
    (
        "this browser cannot read it as a picture",
        "此浏览器无法将它作为图片读取",
    ),
    (
        "Take a JPEG, PNG or WebP file; your current picture is unchanged",
        "请使用 JPEG、PNG 或 WebP 文件；当前图片未改变",
    ),
    (
        "it is a HEIC picture, which this browser cannot read; Safari can",
        "这是 HEIC 图片，此浏览器无法读取，Safari 可以",
    ),
    (
        "Save it as JPEG and try again; your current picture is unchanged",
        "请另存为 JPEG 后重试；当前图片未改变",
    ),
    (
        "it was cut short: its end is missing",
        "文件不完整，缺少结尾",
    ),
    (
        "Export or download it again; your current picture is unchanged",
        "请重新导出或下载；当前图片未改变",
    ),
    (
        "the browser found no memory for its pixels",
        "浏览器没有足够的内存存放像素",
    ),
    ("its end is missing", "缺少结尾"),
    (
        "is not a JPEG, PNG or WebP picture",
        "不是 JPEG、PNG 或 WebP 图片",
    ),
    (
        "Choose a file of one of these formats",
        "请选择这些格式的文件",
    ),
    ("is damaged or cut short ({})", "已损坏或不完整（{0}）"),
    ("Export or download it again", "请重新导出或下载"),
    (
        "has {} x {} pixels ({} megapixels), the limit is {} megapixels",
        "尺寸为 {0} × {1} 像素（{2} 百万像素），上限是 {3} 百万像素",
    ),
    ("has {} x {} pixels", "尺寸为 {0} × {1} 像素"),
    ("Scale it down and try again", "请缩小后重试"),
    ("Choose another picture", "请选择其他图片"),
    (
        "that site does not let other pages read it",
        "那个网站不允许其他页面读取",
    ),
    (
        "Save it and drop the file here",
        "请先保存，再把文件拖到这里",
    ),
    ("it is larger than {} MB", "文件大于 {0} MB"),
    (
        "Choose a smaller file; nothing was changed",
        "请选择较小的文件；内容未改变",
    ),
    ("the browser cannot read it", "浏览器无法读取"),
    (
        "Choose it again; nothing was changed",
        "请重新选择；内容未改变",
    ),
    ("the browser found no memory for it", "浏览器没有足够的内存"),
    (
        "Close other tabs and try again; nothing was changed",
        "请关闭其他标签页后重试；内容未改变",
    ),
    ("the browser refused the download", "浏览器拒绝了下载"),
    (
        "Allow downloads for this page and try again",
        "请允许本页面下载后重试",
    ),
    // Conversations and boxes from files.
    (
        "it is not in the browser's storage any more",
        "它已不在浏览器的存储中",
    ),
    (
        "it is damaged or written by another version of the page",
        "它已损坏，或由本页面的其他版本写入",
    ),
    ("The others are unchanged", "其他对话未改变"),
    ("it is not a conversation of this page", "不是本页面的对话"),
    (
        "it is not a conversation that this page saved",
        "不是本页面保存的对话",
    ),
    (
        "it has version {}, and this page reads {} and older",
        "版本是 {0}，而本页面只能读取 {1} 及更早的版本",
    ),
    (
        "Reload the page to get its newest version; nothing was changed",
        "请重新加载页面以获取最新版本；内容未改变",
    ),
    ("it names no version", "没有注明版本"),
    ("its picture has no size", "图片没有尺寸"),
    ("its parameters are out of range", "参数超出范围"),
    ("it has too many turns", "问答太多"),
    (
        "a question has more than {} boxes",
        "有一个问题的框超过 {0} 个",
    ),
    ("a coordinate is not a number", "有一个坐标不是数字"),
    ("it is damaged (its end is missing)", "已损坏（缺少结尾）"),
    ("it is damaged ({})", "已损坏（{0}）"),
    (
        "Choose another file; nothing was changed",
        "请选择其他文件；内容未改变",
    ),
    ("the archive is damaged ({})", "压缩包已损坏（{0}）"),
    (
        "the files in the archive are compressed",
        "压缩包中的文件是压缩过的",
    ),
    (
        "Unpack it and choose the files inside together; nothing was changed",
        "请解压后一起选择其中的文件；内容未改变",
    ),
    ("it describes no picture", "其中没有描述图片"),
    (
        "it describes {} pictures and none is called {}",
        "其中描述了 {0} 张图片，但没有一张名为 {1}",
    ),
    (
        "there are {} label files and none is called {}",
        "有 {0} 个标签文件，但没有一个名为 {1}",
    ),
    (
        "Open one of its pictures first; nothing was changed",
        "请先打开其中的一张图片；内容未改变",
    ),
    (
        "Open one of their pictures first; nothing was changed",
        "请先打开其中的一张图片；内容未改变",
    ),
    ("its picture is damaged", "其中的图片已损坏"),
    (
        "Choose another file; your current picture is unchanged",
        "请选择其他文件；当前图片未改变",
    ),
    ("it lists no names", "没有列出名称"),
    ("it is empty", "文件是空的"),
    (
        "line {} is not `class cx cy w h`",
        "第 {0} 行不是 `class cx cy w h`",
    ),
    (
        "its boxes belong to a picture of {} × {} pixels, and the open one has {} × {}",
        "其中的框属于 {0} × {1} 像素的图片，而打开的图片是 {2} × {3} 像素",
    ),
    (
        "Open the picture that belongs to it; nothing was changed",
        "请打开对应的图片；内容未改变",
    ),
    (
        "it has no boxes inside this picture",
        "其中没有位于这张图片内的框",
    ),
    (
        "it is of no kind that can be imported",
        "不是可以导入的类型",
    ),
    (
        "Choose a saved conversation, COCO, Label Studio or labelled JSON, or YOLO label files; nothing was changed",
        "请选择保存过的对话，COCO、Label Studio 或带标签的 JSON，或 YOLO 标签文件；内容未改变",
    ),
    (
        "it has boxes, and no picture is open",
        "其中有框，但没有打开图片",
    ),
    ("Open the picture first", "请先打开图片"),
    (
        "it belongs to {}, a picture of {} × {} pixels, and none is open",
        "它属于 {0}（{1} × {2} 像素），但没有打开图片",
    ),
    (
        "it belongs to {}, a picture of {} × {} pixels, and the open one has {} × {}",
        "它属于 {0}（{1} × {2} 像素），而打开的图片是 {3} × {4} 像素",
    ),
    (
        "Open {} first; nothing was changed",
        "请先打开 {0}；内容未改变",
    ),
    // Batches and other files.
    ("Begin a batch with it again", "请用它重新开始批处理"),
    (
        "Choose a saved conversation, COCO, Label Studio or labelled JSON, Pascal VOC, CSV or YOLO label files; nothing was changed",
        "请选择保存过的对话，COCO、Label Studio 或带标签的 JSON，Pascal VOC、CSV 或 YOLO 标签文件；内容未改变",
    ),
    ("Choose its files again", "请重新选择它的文件"),
    (
        "Download the model there in a tab of its own, then choose its folder here; or put the folder on this page's own site",
        "请在单独的标签页中下载该模型，然后在这里选择它的文件夹；或把文件夹放到本页面所在的网站上",
    ),
    ("Retry it", "请重试"),
    ("Skip it", "请跳过它"),
    ("a link leads to no box", "有一个链接没有对应的框"),
    ("a quotation mark has no end", "有一个引号没有结束"),
    ("another picture followed", "又打开了另一张图片"),
    ("it is no Pascal VOC annotation", "不是 Pascal VOC 标注"),
    ("it is no object", "不是对象"),
    ("it is no picture", "不是图片"),
    ("it is none", "不是有效内容"),
    (
        "it was not stored yet when the page was left",
        "离开页面时尚未存储",
    ),
    ("its answer was stopped", "它的回答被停止了"),
    (
        "its first line has no columns x1, y1, x2 and y2",
        "第一行没有 x1、y1、x2 和 y2 列",
    ),
    ("its other answers are damaged", "其他回答已损坏"),
    ("its stored state is damaged", "存储的状态已损坏"),
    (
        "lies on, or leads to, another site, and this page fetches models from its own site only, so that nothing can leave it",
        "位于或转到了另一个网站，而本页面只从自己的网站获取模型，以确保内容不会离开",
    ),
    ("the XML is damaged at {}", "XML 在 {0} 处已损坏"),
    ("the batch", "批处理"),
    ("the message", "消息"),
    ("there is no picture yet", "还没有图片"),
    ("there is no picture", "没有图片"),
    ("this checkpoint", "此检查点"),
    ("is lost", "已丢失"),
    (
        "the pictures are too large for one archive",
        "图片太大，无法放入一个压缩包",
    ),
    ("Save the ZIP without the pictures", "请保存不含图片的 ZIP"),
    (
        "{} pictures are too many for one batch; {} are the most",
        "一批不能有 {0} 张图片，最多 {1} 张",
    ),
    (
        "Choose fewer pictures; nothing was begun",
        "请少选一些图片；尚未开始",
    ),
    ("it is open in another tab", "它正在另一个标签页中打开"),
    (
        "Close that tab, or go on there",
        "请关闭那个标签页，或在那里继续",
    ),
    (
        "another tab left one that is kept",
        "另一个标签页留下了一批，已保存",
    ),
    (
        "Save its results, or begin anew in its place",
        "请保存它的结果，或删除它并重新开始",
    ),
    // The worker.
    ("it could not start ({})", "无法启动（{0}）"),
    ("a message could not be read", "有一条消息无法读取"),
    ("it takes no messages ({})", "不接收消息（{0}）"),
    (
        "it sent a message that is not an event",
        "发来的消息不是事件",
    ),
    ("it sent an unknown event ({})", "发来了未知的事件（{0}）"),
    ("it stopped ({})", "已停止（{0}）"),
    ("it could not be loaded", "无法加载"),
    (
        "Start it again; picture and conversation are kept",
        "请重新启动；图片和对话都会保留",
    ),
    (
        "Reload the page: it is of another version than the engine",
        "请重新加载页面：它与引擎的版本不同",
    ),
    // The engine.
    ("no model is loaded", "没有加载模型"),
    ("Load a model first", "请先加载模型"),
    ("is not the current picture", "不是当前图片"),
    ("Open the picture again", "请重新打开图片"),
    ("computed NaN or infinite values", "计算出了 NaN 或无穷大"),
    (
        "Reload the model, or use another device",
        "请重新加载模型，或使用其他设备",
    ),
    ("has no token that the model knows", "没有模型认识的词元"),
    ("Ask in other words", "请换一种说法"),
    (
        "has {} tokens, plus {} for the answer; there is room for {}",
        "有 {0} 个词元，回答还需 {1} 个；总共只能容纳 {2} 个",
    ),
    (
        "Ask a shorter question, or for a shorter answer",
        "请缩短问题，或减小回答的最大长度",
    ),
    ("Ask the question again", "请重新提问"),
    ("nothing is asked", "没有提出问题"),
    ("Write a question", "请写一个问题"),
    (
        "has {} boxes, the limit is {}",
        "有 {0} 个框，上限是 {1} 个",
    ),
    ("Ask about fewer boxes", "请减少所问的框"),
    (
        "comes with boxes, and this model reads text alone",
        "带有框，而此模型只读文字",
    ),
    (
        "Ask without boxes, or open a model that sees pictures",
        "提问时不要带框，或打开能看图片的模型",
    ),
    (
        "contains `{}`, which is a control word of the model",
        "含有 `{0}`，这是模型的控制词",
    ),
    (
        "Remove it; the picture and its boxes are always part of the question",
        "请删除它；图片和框总是包含在问题中",
    ),
    ("Remove it", "请删除它"),
    (
        "names <obj{}>, but there are no boxes",
        "提到了 <obj{0}>，但没有框",
    ),
    (
        "names <obj{}>, but the only box is <obj0>",
        "提到了 <obj{0}>，但只有一个框 <obj0>",
    ),
    (
        "names <obj{}>, but there are {} boxes, <obj0> to <obj{}>",
        "提到了 <obj{0}>，但只有 {1} 个框，即 <obj0> 到 <obj{2}>",
    ),
    (
        "Name one of the boxes shown, or show more boxes",
        "请使用已显示的框，或显示更多的框",
    ),
    ("will not run on {}: it {}", "无法在 {0} 上运行：{1}"),
    (
        "Use a smaller model, or this one quantized to fewer bits",
        "请使用更小的模型，或此模型位数更少的量化版本",
    ),
    ("does not compile on {}: {}", "无法在 {0} 上编译：{1}"),
    (
        "Update the browser or the GPU driver, or use another device",
        "请更新浏览器或 GPU 驱动，或使用其他设备",
    ),
    ("Fetch or convert the model again", "请重新获取或转换模型"),
    (
        "Fetch or convert the model again, or use another device",
        "请重新获取或转换模型，或使用其他设备",
    ),
    (
        "Update the GPU driver, or use another device",
        "请更新 GPU 驱动，或使用其他设备",
    ),
    // Models: network and storage.
    ("could not be fetched: {}", "无法获取：{0}"),
    (
        "Check the connection and try again; what came is kept",
        "请检查网络连接后重试；已下载的部分会保留",
    ),
    (
        "lies on, or leads to, another host, which this page's content security policy forbids",
        "位于或转到了另一个主机，而本页面的内容安全策略不允许",
    ),
    (
        "Put the model folder on this page's own host, or name the other host in the policy's connect-src",
        "请把模型文件夹放到本页面所在的主机上，或在策略的 connect-src 中写入那个主机",
    ),
    (
        "Check the address, or ask the owner of the folder to upload the model again",
        "请检查地址，或请文件夹的所有者重新上传模型",
    ),
    (
        "is neither an address nor a hub's owner/name",
        "既不是地址，也不是模型站点上的“所有者/名称”",
    ),
    (
        "Give the address of a folder that holds model.json",
        "请输入含有 model.json 的文件夹的地址",
    ),
    ("is not known any more", "已没有记录"),
    (
        "Give its address or choose its files again",
        "请重新输入地址或选择文件",
    ),
    (
        "came from files of yours, and some are missing or damaged here",
        "来自你的文件，其中一些在这里缺失或已损坏",
    ),
    ("Choose the files again", "请重新选择文件"),
    ("is not here as a whole yet", "尚未完整"),
    ("Wait for it, then load it", "请等待完成后再加载"),
    ("is not kept in this browser any more", "已不在此浏览器中"),
    ("Download or import it again", "请重新下载或导入"),
    ("is not among the files you chose", "不在你选择的文件中"),
    ("are not among the files you chose", "不在你选择的文件中"),
    ("Choose the whole folder", "请选择整个文件夹"),
    (
        "could not be read from this browser's storage: {}",
        "无法从浏览器的存储中读取：{0}",
    ),
    ("could not be read: {}", "无法读取：{0}"),
    ("is shorter than it was when it was chosen", "比选择时更短"),
    ("is loaded", "已加载"),
    ("Unload it first, then delete it", "请先卸载，再删除"),
    ("is in use in another tab", "正在另一个标签页中使用"),
    (
        "Unload it or close that tab, then try again",
        "请卸载它或关闭那个标签页，然后重试",
    ),
    (
        "This needs {} and the browser refused the space",
        "需要 {0}，但浏览器拒绝提供空间",
    ),
    (
        "Delete another model, or free space on this device",
        "请删除其他模型，或释放本设备的空间",
    ),
    ("could not be stored: {}", "无法存储：{0}"),
    (
        "Try again, or delete the model and download it again",
        "请重试，或删除模型后重新下载",
    ),
    (
        "keeps no files for this page: {}",
        "不为本页面保存文件：{0}",
    ),
    (
        "Open the page over HTTPS and outside a private window",
        "请通过 HTTPS 打开页面，并且不要使用隐私窗口",
    ),
    ("the download was cancelled", "下载已取消"),
    (
        "is damaged at {}: its SHA-256 was wrong {} times",
        "在 {0} 处损坏：SHA-256 错误了 {1} 次",
    ),
    (
        "has {}; this program reads version {}",
        "其中有 {0}；本程序读取版本 {1}",
    ),
    (
        "Update the program, or convert the model again",
        "请更新程序，或重新转换模型",
    ),
    ("does not fit its format: {}", "不符合格式：{0}"),
    ("has {} bytes instead of {}", "有 {0} 字节，应为 {1} 字节"),
    (
        "is damaged: SHA-256 {} instead of {}",
        "已损坏：SHA-256 为 {0}，应为 {1}",
    ),
    ("cannot be read ({})", "无法读取（{0}）"),
    (
        "has {} bytes; at most {} are read",
        "有 {0} 字节，最多读取 {1} 字节",
    ),
    // Why a model fits a device or not.
    ("needs {} of memory, {} are free", "需要 {0} 内存，可用 {1}"),
    ("runs on the CPU", "在 CPU 上运行"),
    (
        "has a tensor of {}, and this device binds at most {}",
        "有一个 {0} 的张量，而此设备最多绑定 {1}",
    ),
    (
        "{}; proposal network and towers are loaded again for every new image",
        "{0}；每张新图片都要重新加载候选框网络和视觉塔",
    ),
    (
        "{}; every part is loaded again each time it is used, which is slow",
        "{0}；每个部分在每次使用时都要重新加载，因此较慢",
    ),
    (
        "needs {} of GPU memory, tested here",
        "需要 {0} GPU 内存，已在此测试",
    ),
    (
        "needs at least {} of GPU memory, which the device refused",
        "至少需要 {0} GPU 内存，而设备拒绝提供",
    ),
    (
        "needs at least {}, {} are allowed",
        "至少需要 {0}，而只允许 {1}",
    ),
    // What the models of this page say of themselves.
    (
        "Knows 80 kinds of everyday things in photographs: people, pets, vehicles, furniture, kitchen, food. It sees most big things, misses more than half of all objects, small ones above all, and calls one in six that it finds by a wrong name",
        "认识照片中的 80 种日常物体：人、宠物、车辆、家具、厨具、食物。大的物体多半能看到，但会漏掉一半以上的物体，尤其是小的；找到的物体中有六分之一会叫错名字",
    ),
    (
        "lists of boxes as a detector of photographs reports them, drawn by this project; the detector was trained on COCO by its authors",
        "本项目绘制的框列表，形式与照片检测器的输出相同；检测器由其作者用 COCO 训练",
    ),
    (
        "scenes of emoji stickers drawn by this project",
        "本项目绘制的表情贴纸场景",
    ),
];

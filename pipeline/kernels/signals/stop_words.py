"""Stop words of 36 languages, a few dozen each, written for this project.

The commonest articles, pronouns, prepositions, conjunctions and auxiliaries; where words are not separated, what the
word rule leaves of them (a letter with its marks). A text in a language has many of them; a list, a table or another
language has few. GOPHER's eight are the paper's (Rae et al. 2021, appendix A1.1).
"""

GOPHER = "the be to of and that have with"
STOP_WORDS = {
    "ar": "في من على إلى عن أن إن لا ما هذا هذه التي الذي كان كانت هو هي مع كل بين ذلك قد لم أو ثم حتى عند بعد قبل غير",
    "bg": "и в на да се за от с не е по като че са към или но ще това при до си му го той тя те който която след",
    "bn": "এবং ও এই যে করে তার না একটি জন্য থেকে হয় করা এক সঙ্গে বা কিন্তু আমি তিনি হয়ে পরে কি আর যা হবে কোন ছিল",
    "cs": "a v na se je že s z do o k i to pro ale jako by za po od jsou byl který která které nebo při jeho aby tak"
    " však",
    "da": "og i at er en det den til af for på de med der som et ikke har var fra han hun vi sig men om eller kan blev",
    "de": "der die das und in zu den von mit ist des auf für im dem nicht ein eine als auch es an werden aus sich bei"
    " oder nach sind wird",
    "el": "και το να του η της με που την από για τα είναι ο στο οι θα των σε τον δεν στην αυτό ή μια στη ως αλλά",
    "en": "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they"
    " which you we their has can",
    "es": "de la que el en y a los del se las por un para con no una su al lo como más pero sus es o este ha si sobre"
    " son",
    "fa": "و در به از که این را با است برای آن یک خود تا بر هم نیز شد یا اما شده باید بود دارد هر ما او چه اگر",
    "fi": "ja on ei että se oli hän mutta ovat kun niin myös kuin tai jos joka sen sekä vain mitä ole tämä voi mukaan"
    " olla hänen jotka",
    "fr": "de la le et les des en un une du que est pour qui dans par sur au pas plus il ne se ce avec son sont ou aux"
    " cette mais",
    "he": "של את על לא הוא זה עם כי גם או היא אל כל אם אבל יש היה אני מה הם בין רק אשר לפי אחרי כמו עד",
    "hi": "के में की है और से को का पर यह कि एक ने हैं भी लिए नहीं इस था तो या हो जो कर अपने किया थे साथ",
    "hu": "a az és hogy nem is egy ez meg csak volt de mint van azt ki el már ha vagy még kell lehet amely között után",
    "id": "yang dan di dengan untuk tidak ini dari dalam itu pada akan adalah juga ke bisa oleh atau sebagai ada mereka"
    " karena tersebut dapat kami saya",
    "it": "di e che la il un a è per in una non sono con del si da come le i al lo della più gli dei nel ma ha anche",
    "ja": "の に は を た が で て と し れ さ も い な か ら る こ そ あ っ う よ",
    "ko": "그 이 수 있는 것은 것이 있다 및 등 또는 그리고 하지만 한 할 때 더 이런 그런 대한 위해 하는 된 없는 같은 모든"
    " 다른 것을 경우 따라",
    "nl": "de van het een en in is dat op te zijn met voor niet die aan er om ook als bij maar dan door of uit nog naar"
    " worden",
    "no": "og i det er på en til som av for at med de ikke den har fra et var om han seg men så kan vi eller ble etter",
    "pl": "i w na z się nie do to że jest o jak po za od co ale przez dla są tak przy już oraz który która lub jego"
    " być",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou é"
    " são",
    "ro": "și de în a la cu că nu pe o este un din se mai pentru care sau ca să după lui dar au fost prin sunt al",
    "ru": "и в не на что с по как это он она но к от из у за же для то бы до или его при если так также они был быть",
    "sv": "och i att det som en på är av för med till den har de inte om ett han men var jag sig från vi så kan eller"
    " när",
    "tr": "ve bir bu için ile de da olarak çok daha olan gibi en kadar ne sonra var ise ama her ya veya o ki mi değil",
    "uk": "і в на що не з та у до як за це від по є для але або його він вона вони так при про які який бути ж також",
    "vi": "và của là có cho các không được trong với một những này người đã khi để từ như về cũng ra tại nhưng vào sẽ",
    "zh": "的 是 在 了 和 有 不 这 我 他 为 以 也 就 而 与 及 其 你 們 们 但 之 于 到 說 说 或 很 都",
}
# Of languages whose scripts no other one here uses, so that they share a bit.
OWN_SCRIPTS = {
    "bo": "དང གི ཀྱི གྱི ཡི ནི ལ ལས ནས དུ སུ ཏུ ན པའི བའི ཡིན ཡོད རེད འདི དེ ཞིག གང ཡང བཅས",
    "dz": "དང གི ཀྱི གྱི ནི ལུ ལས དེ འདི འབད ཨིན ཡོད ཚུ པའི བའི ནང ཡང ག",
    "km": "នៅ នេះ ជា នៃ ពី គឺ ឬ ទៅ មា ដែ ដោ បា ឱ្ ទាំ នោះ ក៏ ណា តែ",
    "lo": "ທີ່ ມີ ນີ້ ນັ້ ບໍ່ ໄດ້ ວ່ ຫຼື ກັ ປັ ກໍ່ ກໍ ຢູ່ ຢ່ ດ້ ຈັ ໃຫ້ ຫ້ ຕໍ່ ຕ້",
    "my": "ကို များ ည် သော ရှိ မှ မှု တို့ ပါ စေ ခဲ့ ဖြ နှ ဟု ရာ ပြီး လည်း ည့်",
    "th": "ที่ มี นี้ ก็ ว่ ป็ ม่ ด้ ห้ กั นั้ ผู้ จั ต่ ซึ่ ยู่ ถึ นั ร์ ขึ้ บั",
}
SUPPORTED = frozenset(STOP_WORDS | OWN_SCRIPTS)

"""Words of MediaWiki in the paper's twenty languages: names of sections, namespaces and templates that mark no prose."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split("|"))


_SECTIONS = {
    "bg": "бележки|бележки и източници|библиография|виж още|вижте също|външни препратки|източници|използвана литература"
          "|литература|цитирани източници",
    "ca": "bibliografia|enllaços externs|fonts|notes|notes i referències|referències|referències i notes|vegeu també"
          "|bibliografia addicional|per a més informació",
    "cs": "bibliografie|externí odkazy|literatura|odkazy|poznámky|reference|související články|zdroje|související stránky",
    "da": "eksterne henvisninger|eksterne links|fodnoter|henvisninger|kilder|kilder og henvisninger|litteratur|noter"
          "|referencer|se også|bibliografi",
    "de": "anmerkungen|belege|bibliografie|bibliographie|einzelnachweise|fußnoten|literatur|quellen|referenzen|siehe auch"
          "|weblinks|weiterführende literatur|einzelnachweise und anmerkungen|anmerkungen und einzelnachweise",
    "en": "bibliography|citations|external links|external link|footnotes|further reading|general references|literature cited"
          "|notes|notes and references|references|references and notes|references and further reading|references cited"
          "|see also|sources|works cited|cited sources|cited works|explanatory notes|notes and citations"
          "|footnotes and references|sources and notes|external links and references|references and external links"
          "|additional reading|primary sources|secondary sources",
    "es": "bibliografía|enlaces externos|fuentes|lecturas adicionales|notas|notas y referencias|referencias|véase también"
          "|referencias y notas|bibliografía adicional|otras lecturas",
    "fr": "annexes|articles connexes|bibliographie|lectures complémentaires|lien externe|liens externes|liens internes|notes"
          "|notes et références|référence|références|sources|voir aussi|sources et bibliographie|note et référence",
    "hr": "bilješke|bilješke i izvori|izvori|literatura|poveznice|vanjske poveznice|vidi još|povezani članci|reference",
    "hu": "források|forrás|irodalom|jegyzetek|kapcsolódó szócikkek|külső hivatkozások|lásd még|megjegyzések"
          "|további információk|további irodalom|bibliográfia",
    "it": "altri progetti|bibliografia|collegamenti esterni|fonti|note|riferimenti|voci correlate|annotazioni",
    "nl": "bibliografie|bronnen|bronnen, noten en/of referenties|externe link|externe links|externe koppelingen|literatuur"
          "|noten|referenties|voetnoten|zie ook|bron|verder lezen",
    "pl": "bibliografia|linki zewnętrzne|literatura|przypisy|uwagi|zobacz też|źródła|literatura uzupełniająca"
          "|uwagi i przypisy",
    "pt": "bibliografia|fontes|leitura adicional|leituras adicionais|ligações externas|links externos|notas"
          "|notas e referências|referências|ver também|veja também|notas de rodapé|referências bibliográficas",
    "ro": "bibliografie|legături externe|lectură suplimentară|note|note și referințe|referințe|surse|vezi și"
          "|note bibliografice|vezi şi|referinţe|note şi referinţe",
    "ru": "библиография|источники|комментарии|литература|примечания|см. также|смотри также|ссылки|сноски|список литературы"
          "|использованная литература|примечания и ссылки",
    "sl": "bibliografija|glej tudi|literatura|opombe|opombe in sklici|sklici|viri|zunanje povezave|reference|sklici in opombe",
    "sr": "белешке|библиографија|види још|извори|литература|напомене|референце|спољашње везе|спољне везе|vidi još|izvori"
          "|literatura|napomene|reference|spoljašnje veze|bibliografija",
    "sv": "bibliografi|externa länkar|fotnoter|källor|källförteckning|litteratur|noter|referenser|se även|vidare läsning"
          "|tryckta källor|webbkällor|noter och källor",
    "uk": "бібліографія|використана література|див. також|джерела|література|примітки|посилання|зовнішні посилання|виноски"
          "|дивіться також|джерела та література",
}
SECTIONS = {language: _names(names) for language, names in _SECTIONS.items()}
"""Language -> names, in lower case, of sections that hold references, links and literature."""
ALL_SECTIONS = frozenset().union(*SECTIONS.values())
"""The same for a language that is not in the table."""

FILES = _names(
    "file|image|media|файл|картинка|fitxer|imatge|soubor|obrázek|fil|billede|datei|bild|archivo|imagen|fichier|datoteka|slika"
    "|fájl|kép|immagine|bestand|afbeelding|plik|grafika|ficheiro|arquivo|imagem|fișier|fişier|imagine|изображение|датотека"
    "|слика|зображення")
"""Namespaces of pictures and sounds, in lower case."""
CATEGORIES = _names(
    "category|категория|categoria|kategorie|kategori|categoría|catégorie|kategorija|kategória|categorie|kategoria|категорија"
    "|категорія")
"""Namespaces of categories, in lower case."""

DISAMBIGUATION = (
    r"(?:\w+ ){0,3}(?:disambig(?:uation)?(?: page)?|disamb|dab|mathdab|hndis|geodis)(?: cleanup)?"
    r"|пояснение|desambiguació|rozcestník(?: - \w+)?|flertydig\w*|begriffsklärung|desambiguación|desambiguacion|homonymie"
    r"|(?:paronymie|patronymie|toponymie)|razdvojba|egyért\w*(?: lap)?|disambigua|dp|dpintro|doorverwijspagina|ujednoznacznienie"
    r"|desambig\w*|desambiguação|dezambiguizare|неоднозначность|список однофамильцев|однофамильцы|razločitev|вишезначна одредница"
    r"|višeznačna odrednica|förgrening(?:ssida)?|gren|grensida|неоднозначність|багатозначність")
"""Regular expression of templates, in lower case, that mark a page which only lists what its title may mean."""

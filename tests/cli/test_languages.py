from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fewfit.cli.languages import ENGLISH, OTHERS, other_language
from fewfit.datasets import load_support_desk

SAID = {
    "Czech": "Balík není tady a já na něj čekám, ale nikdo se neozval. Už jsem volal, že je pozdě.",
    "Danish or Norwegian": "Jeg har ikke fått pakken, og det er for sent. Regningen er på for mye.",
    "Dutch": "Ik heb het pakket niet gekregen, maar de rekening is een dag te vroeg.",
    "Finnish": "Paketti ei ole tullut, mutta lasku on täällä. Olen odottanut ja se oli liian niin.",
    "French": "Le paquet est arrivé en retard et je ne trouve pas la facture dans mon compte.",
    "German": "Ich habe das Paket nicht bekommen, und die Rechnung ist auf den falschen Namen.",
    "Hungarian": "Nem jött meg az áru, és azt mondták, hogy már elküldték, de ez nem igaz.",
    "Indonesian": "Saya tidak menerima paket ini dan tagihan itu salah untuk akun yang baru.",
    "Italian": "Il pacco non è arrivato e questo mi sembra strano, anche per una ditta della zona.",
    "Polish": "Nie dostałem paczki, ale rachunek jest na stole. Czy to się da zmienić przez sieć?",
    "Portuguese": "O pacote não chegou e a conta é muito alta para uma casa com os preços em dia.",
    "Romanian": "Pachetul nu a ajuns și factura este prea mare pentru mine, sunt client cu acte.",
    "Spanish": "El paquete no llegó y la factura es muy alta, pero mi banco lo pagó por una vez.",
    "Swedish": "Jag har inte fått paketet och det är för sent att skicka med ett nytt på måndag.",
    "Turkish": "Paket gelmedi ve bu çok kötü bir durum, ama fatura için daha fazla ödedim gibi.",
}


@pytest.mark.parametrize("language", OTHERS)
def test_two_sentences_are_enough(language):
    guess = other_language([SAID[language]])
    assert guess is not None
    assert guess.language == language
    assert guess.share > 0.6
    assert set(guess.words) <= set(OTHERS[language].split())


def test_english_is_english_also_with_names_and_quotations():
    texts, _ = load_support_desk()
    assert other_language(texts) is None
    named = [
        "We met in La Paz and flew to Los Angeles",
        "He wrote 'que sera' on the wall",
    ]
    assert other_language([*named, "Is it the one of El Greco that you saw with your son?"]) is None


def test_nothing_is_said_of_little():
    for few in ([], ["", "12"], ["nicht"], ["これは とても いい"], ["xyzzy plugh"]):
        assert other_language(few) is None


def test_no_word_is_english_too():
    assert not set(ENGLISH.split()) & {word for words in OTHERS.values() for word in words.split()}


def test_the_languages_of_the_benchmark():
    content = tomllib.loads((Path(__file__).parents[2] / "benchmarks/languages.toml").read_text())
    for language, classes in content["texts"].items():
        guess = other_language(text for texts in classes.values() for text in texts)
        latin = language not in ("English", "Japanese")
        assert (guess is not None and guess.language == language) == latin, (language, guess)

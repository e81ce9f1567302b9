"""A classifier of Hugging Face's transformers, as it is: a BERT of two small layers with random weights.

    pip install transformers
    python examples/hugging_face.py                        # questions that are put together here
    python examples/hugging_face.py --data-root DIR        # TREC: DIR/trec/TREC.train and TREC.test
    python examples/hugging_face.py --model NAME           # a checkpoint and its tokenizer
    python examples/hugging_face.py --strategy BALD        # by passes of MC dropout

Nothing is downloaded, unless `--model` names what is not in a folder: configuration and vocabulary are made
here. Rows are mappings without padding, a collator of the library pads each batch, and the pool's batches
come without `labels`, so that the model gives logits and no loss.

With transformers 5.24, 250 labels and `Margin`: 0.945 of the questions made here, in 22 s of one core, and
0.706 of TREC, in 35 s.
"""

import lightning as L
import torch
from data_sets import QUESTIONS, options, questions
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torchmetrics.functional import accuracy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
)  # fmt: skip

from lightning_al import ActiveDataModule, ActiveLearning, MCDropout, fit_rounds
from lightning_al import acquisition as acq

STRATEGIES = ("Margin", "BADGE", "BALD", "Random")


def strategy(name, module):
    """By its name. The attention of these models drops in training mode only, so `BALD` names it."""
    if name != "BALD":
        return getattr(acq, name)()
    attention = {type(part) for part in module.modules() if type(part).__name__.endswith("SelfAttention")}
    return acq.BALD(MCDropout(20, train=sorted(attention, key=lambda part: part.__name__)))


def word_tokenizer(texts):
    """A tokenizer of the library whose words are those of the texts."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=5000, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def small_bert(words):
    """Two layers of width 64, with random weights."""
    config = BertConfig(
        vocab_size=words, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64, num_labels=len(QUESTIONS),
    )  # fmt: skip
    return AutoModelForSequenceClassification.from_config(config)


class Classifier(L.LightningModule):
    """Any model of the library that classifies sequences."""

    def __init__(self, model, rate):
        super().__init__()
        self.model, self.rate = model, rate

    def forward(self, **batch):
        """What the model says of a batch: `.logits`, and a `.loss` where the batch has `labels`."""
        return self.model(**batch)

    def training_step(self, batch, batch_idx):
        """The model's own loss."""
        return self(**batch).loss

    def test_step(self, batch, batch_idx):
        """Accuracy."""
        logits, labels = self(**batch).logits, batch["labels"]
        score = accuracy(logits, labels, task="multiclass", num_classes=len(QUESTIONS))
        self.log("test_acc", score, batch_size=len(labels))

    def configure_optimizers(self):
        """AdamW with a warm-up: a schedule means one round."""
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rows(pairs, tokenizer):
    """Mappings with `input_ids`, `attention_mask` and `labels`, as long as their text."""
    return [dict(tokenizer(text, truncation=True, max_length=64), labels=label) for text, label in pairs]


def main():
    """A simulation: all labels are there, and stay hidden until they are asked for."""
    parser = options(__doc__, rounds=4)
    parser.add_argument("--strategy", choices=STRATEGIES, default="Margin")
    parser.add_argument("--model", help="a pre-trained one; default: a small one with random weights")
    parser.add_argument("--query-size", type=int, default=50, help="labels to begin with, and asked a round")
    parser.add_argument("--steps", type=int, default=250, help="training batches a round")
    args = parser.parse_args()

    train, test = questions(args.data_root)
    if args.model is None:
        tokenizer = word_tokenizer(text for text, _ in train)
    else:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    data = ActiveDataModule(
        rows(train, tokenizer), test_set=rows(test, tokenizer), class_names=QUESTIONS,
        collate_fn=DataCollatorWithPadding(tokenizer), initial=args.query_size, batch_size=32,
        pool_batch_size=256, steps_per_epoch=args.steps, seed=args.seed, state_dir=args.state_dir,
    )  # fmt: skip

    def make_model(seed):
        torch.manual_seed(seed)
        if args.model is None:
            return Classifier(small_bert(len(tokenizer)), rate=1e-3)
        pretrained = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=len(QUESTIONS))
        return Classifier(pretrained, rate=5e-5)

    # A round begins with what `make_model` makes: the checkpoint's weights, and a new head.
    active = ActiveLearning(
        strategy(args.strategy, make_model(0)), query_size=args.query_size, restart="redraw"
    )

    def make_trainer(number):
        return L.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
            enable_progress_bar=False, gradient_clip_val=1.0,
        )  # fmt: skip

    history = fit_rounds(make_model, make_trainer, data, active, rounds=args.rounds)
    print(history.to_frame()[["round", "labeled", "asked", "test_acc"]].to_string(index=False))


if __name__ == "__main__":
    main()

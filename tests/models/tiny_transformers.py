"""Small configurations of many architectures of transformers, and their directories with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_TEXT = {"vocab_size": 60, "max_position_embeddings": 96}
_WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_GROUPED = {**_TEXT, **_WIDE, "num_key_value_heads": 2, "pad_token_id": 0}
_IMAGE = {"image_size": 32, "patch_size": 8, "num_labels": 3}
_CLIP = {**_WIDE, "projection_dim": 16}
_SEQ2SEQ = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
}  # fmt: skip
_SPEECH = {
    **_WIDE, "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2, "vocab_size": 20, "num_feat_extract_layers": 2,
}  # fmt: skip
_SMALL_RESNET = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
                 "layer_type": "basic", "out_features": ["stage4"]}  # fmt: skip

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    # encoders of text
    "bert": ("BertForSequenceClassification", {**_TEXT, **_WIDE}),
    "bert-base": ("BertModel", {**_TEXT, **_WIDE}),
    "bert-mlm": ("BertForMaskedLM", {**_TEXT, **_WIDE}),
    "bert-qa": ("BertForQuestionAnswering", {**_TEXT, **_WIDE}),
    "roberta": ("RobertaForSequenceClassification", {**_TEXT, **_WIDE, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaForTokenClassification", {**_TEXT, **_WIDE, "pad_token_id": 1}),
    "camembert": ("CamembertForSequenceClassification", {**_TEXT, **_WIDE, "pad_token_id": 1}),
    "electra": ("ElectraForSequenceClassification", {**_TEXT, **_WIDE, "embedding_size": 24}),
    "distilbert": ("DistilBertForSequenceClassification", {
        "vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 96}),
    "albert": ("AlbertForSequenceClassification", {**_TEXT, **_WIDE, "embedding_size": 16}),
    "mpnet": ("MPNetForSequenceClassification", {**_TEXT, **_WIDE}),
    "deberta-v2": ("DebertaV2ForSequenceClassification", {
        **_TEXT, **_WIDE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}),
    "modernbert": ("ModernBertForSequenceClassification", {
        **_TEXT, **_WIDE, "global_attn_every_n_layers": 2, "local_attention": 16, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}),
    "layoutlm": ("LayoutLMForSequenceClassification", {**_TEXT, **_WIDE}),
    # decoders
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 60, "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gpt-neo": ("GPTNeoForCausalLM", {**_TEXT, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
                                      "attention_types": [[["global", "local"], 1]], "window_size": 16}),
    "gpt-neox": ("GPTNeoXForCausalLM", {**_TEXT, **_WIDE}),
    "opt": ("OPTForCausalLM", {"vocab_size": 60, "max_position_embeddings": 96, "hidden_size": 32, "ffn_dim": 48,
                               "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32,
                               "pad_token_id": 0}),
    "bloom": ("BloomForCausalLM", {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "phi": ("PhiForCausalLM", {**_TEXT, **_WIDE}),
    "phi3": ("Phi3ForCausalLM", _GROUPED),
    "llama": ("LlamaForCausalLM", _GROUPED),
    "mistral": ("MistralForCausalLM", _GROUPED),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED),
    "qwen3": ("Qwen3ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "gemma": ("GemmaForCausalLM", {**_GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", {**_GROUPED, "head_dim": 8, "sliding_window": 16}),
    "gemma3": ("Gemma3ForCausalLM", {**_GROUPED, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 16}),
    "olmo2": ("Olmo2ForCausalLM", _GROUPED),
    "stablelm": ("StableLmForCausalLM", _GROUPED),
    "starcoder2": ("Starcoder2ForCausalLM", _GROUPED),
    "falcon": ("FalconForCausalLM", {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2,
                                     "num_attention_heads": 4}),
    "mixtral": ("MixtralForCausalLM", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": ("Qwen2MoeForCausalLM", {
        **_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 24}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", {
        **_GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    # encoder and decoder
    "t5": ("T5ForConditionalGeneration", {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2,
                                          "num_heads": 4, "decoder_start_token_id": 0}),
    "t5-gated": ("T5ForConditionalGeneration", {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48,
                                                "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
                                                "feed_forward_proj": "gated-gelu"}),
    "bart": ("BartForConditionalGeneration", {**_SEQ2SEQ, "max_position_embeddings": 96}),
    "marian": ("MarianMTModel", {**_SEQ2SEQ, "max_position_embeddings": 96, "pad_token_id": 0}),
    # images
    "vit": ("ViTForImageClassification", {**_WIDE, **_IMAGE}),
    "deit": ("DeiTForImageClassification", {**_WIDE, **_IMAGE}),
    "beit": ("BeitForImageClassification", {**_WIDE, **_IMAGE}),
    "dinov2": ("Dinov2ForImageClassification", {**_WIDE, **_IMAGE, "mlp_ratio": 2}),
    "swin": ("SwinForImageClassification", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2],
                                            "num_heads": [2, 4], "window_size": 4, "num_labels": 3}),
    "segformer": ("SegformerForSemanticSegmentation", {
        "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32],
        "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
        "decoder_hidden_size": 24, "num_labels": 3, "image_size": 64}),
    "convnext": ("ConvNextForImageClassification", {"hidden_sizes": [16, 24], "depths": [1, 1], "num_stages": 2,
                                                    "image_size": 32, "num_labels": 3}),
    "resnet": ("ResNetForImageClassification", {"embedding_size": 16, "hidden_sizes": [16, 24], "depths": [1, 1],
                                                "layer_type": "basic", "num_labels": 3}),
    "mobilevit": ("MobileViTForImageClassification", {
        "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 24, 24, 32, 48], "num_attention_heads": 4,
        "image_size": 64, "num_labels": 3}),
    "detr": ("DetrForObjectDetection", {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "num_queries": 6,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_labels": 3,
        "use_timm_backbone": False, "backbone_config": _SMALL_RESNET, "use_pretrained_backbone": False,
        "backbone": None}),
    "rt-detr": ("RTDetrForObjectDetection", {
        "d_model": 32, "encoder_hidden_dim": 32, "encoder_in_channels": [24, 32, 40], "encoder_ffn_dim": 48,
        "encoder_attention_heads": 4, "decoder_in_channels": [32, 32, 32], "decoder_ffn_dim": 48, "num_labels": 3,
        "decoder_attention_heads": 4, "decoder_layers": 1, "num_queries": 6, "num_denoising": 0, "image_size": 64,
        "backbone_config": {"model_type": "rt_detr_resnet", "embedding_size": 16, "hidden_sizes": [16, 24, 32, 40],
                            "depths": [1, 1, 1, 1], "layer_type": "basic",
                            "out_features": ["stage2", "stage3", "stage4"]}}),
    "yolos": ("YolosForObjectDetection", {**_WIDE, "image_size": [32, 32], "patch_size": 8, "num_labels": 3,
                                          "num_detection_tokens": 5}),
    # two kinds
    "clip": ("CLIPModel", {"text_config": {**_TEXT, **_CLIP, "eos_token_id": 2}, "projection_dim": 16,
                           "vision_config": {**_CLIP, "image_size": 32, "patch_size": 8}}),
    "clip-text": ("CLIPTextModelWithProjection", {**_TEXT, **_CLIP, "eos_token_id": 2}),
    "siglip-vision": ("SiglipVisionModel", {**_WIDE, "image_size": 32, "patch_size": 8}),
    # sound
    "wav2vec2": ("Wav2Vec2ForCTC", _SPEECH),
    "hubert": ("HubertForSequenceClassification", _SPEECH),
    "whisper": ("WhisperForConditionalGeneration", {
        **_SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 24, "max_target_positions": 32, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "begin_suppress_tokens": None}),
    "ast": ("ASTForAudioClassification", {**_WIDE, "max_length": 48, "num_mel_bins": 32, "patch_size": 8,
                                          "frequency_stride": 8, "time_stride": 8}),
}  # fmt: skip
"""Name -> class and configuration."""


def save_small(transformers: Any, name: str, folder: Path, **more: Any) -> Any:
    """The network `name` with random weights, saved in `folder` as its users do; no weight is 0 or 1."""
    kind, entries = SMALL[name]
    cls = getattr(transformers, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = cls(cls.config_class(**{**entries, **more})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model
